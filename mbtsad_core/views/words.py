"""Figures as words: the one place where shares become percent."""

from __future__ import annotations

from mbtsad_core.types import Rate

HELP = {
    "CACC": "Share of clean test texts that are answered right",
    "ASR": "Attack success rate: share of triggered texts of the other classes that go to the target class",
    "floor": "Share of the same texts that go to the target class without the trigger",
}


def percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f} %"


def rate(value: Rate | None) -> str:
    """ "13.0 % [10.9, 15.4] (119 of 912)": share, 95 % interval, counts."""
    if value is None:
        return "not measured"
    return f"{100 * value.share:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}] ({value.hits} of {value.n})"


STILL_WORKS = "This trigger still works"


def still_works_words(asr: Rate, floor: Rate) -> str:
    """What is said first of a run that did not cure its suspect of the trigger that was measured (`still_works`)."""
    return (
        f"{STILL_WORKS}: with it {asr.hits} of {asr.n} texts go to the target ({percent(asr.share)}), without it "
        f"{floor.hits} ({percent(floor.share)})."
    )


def sample_of(n: int) -> str:
    """What a figure that is measured while a run trains is of."""
    return f"a sample of {n} text{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """ "48 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rarity(chance: float) -> str:
    """A share of models in words, before "models". Beyond one of a thousand, some models say nothing of it."""
    if chance > 1 / 2:
        return "most"
    return f"1 of {1 / chance:,.0f}" if chance >= 1 / 1000 else "fewer than 1 of 1,000"
