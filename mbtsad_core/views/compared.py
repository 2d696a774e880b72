"""Methods on one suspect, side by side: in step 4 and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbtsad_core.defenses import DEFENSES
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.methods import Method
from mbtsad_core.rates import rate_of
from mbtsad_core.types import Rate
from mbtsad_core.views.document import TEMPLATES, render
from mbtsad_core.views.words import HELP, duration, percent

COMPARED_STYLE = (TEMPLATES / "compared.css").read_text("utf-8")
FIGURES = {
    "cacc": ("CACC", f"{HELP['CACC']}; behind a detector a flagged text counts as wrong"),
    "asr": ("ASR", f"{HELP['ASR']}; behind a detector a flagged text counts as not attacked"),
    "asr_floor": ("floor", HELP["floor"]),
}
ERRORS = ("frr", "far")  # of a detector


@dataclass(frozen=True)
class Row:
    """A method's row: what it is, its figures where there are any, and its time or how it stands."""

    name: str
    about: str
    state: str
    figures: Mapping[str, Any] | None = None
    more: str = ""

    @property
    def rates(self) -> list[tuple[str, Rate | None]]:
        """Each figure by its name, None where it was not measured; none at all where the method has not ended."""
        found = self.figures
        return [] if found is None else [(name, rate_of(found, key)) for key, (name, _) in FIGURES.items()]


def done_row(name: str, about: str, figures: Mapping[str, Any], seconds: float | None) -> Row:
    """Of a method that has ended, a detector's errors with it."""
    errors = ", ".join(f"{rate.upper()} {percent(figures[rate])}" for rate in ERRORS if figures.get(rate) is not None)
    return Row(name, f"{about}. {errors}" if errors else about, "" if seconds is None else duration(seconds), figures)


def method_row(compared: Mapping[str, Any]) -> Row:
    """Of another method, by what `comparison.compare` tells of it."""
    method: Method[Any, Any] = DEFENSES.get(compared["method"]) or DETECTORS[compared["method"]]
    return done_row(method.title, method.about, compared["result"], compared.get("seconds"))


def compared_html(rows: Sequence[Row]) -> str:
    """The rows as a table. Needs STYLE and COMPARED_STYLE."""
    return render("compared.html", figures=FIGURES, rows=rows)
