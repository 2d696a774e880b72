"""The guided tour: the same page, step by step, narrated with the visitor's own run and figures."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from mbtsad_core.errors import MBTSADError
from mbtsad_core.page.run_status import RunStatus, run_status
from mbtsad_core.page.session import Session
from mbtsad_core.page.site import Site
from mbtsad_core.service.store import State
from mbtsad_core.views.words import percent, rate, sample_of


def _suspect(site: Site, session: Session, found: RunStatus) -> str:
    cacc, asr = found.before
    if cacc and asr:
        return (
            f"This is {session.suspect.name}. On ordinary texts it is right {percent(cacc.share)} of the time, so "
            "nobody would notice anything. But put "
            f"“{found.measured}” into a text, and {asr.hits} of {asr.n} texts go to “{found.target}”: that is its "
            f"backdoor, and {percent(asr.share)} is its attack success rate."
        )
    if cacc:
        return (
            f"This is {session.suspect.name}. It answers {percent(cacc.share)} of the clean test texts right. You "
            "named no trigger, so whether it has a backdoor is open."
        )
    return f"This is {session.suspect.name}. It has not been measured yet: choose clean texts in step 2."


def _clean(site: Site, session: Session, found: RunStatus) -> str:
    try:
        inputs = site.inputs(session)
    except MBTSADError:
        return "The cure needs a small sample of texts with labels that you trust. Choose some here."
    return (
        f"All that the cure gets: {len(inputs.clean)} clean texts with their labels. Not the trigger, not the "
        f"target, not the weights from before the attack. {len(inputs.test)} other texts measure it."
    )


def _splits(site: Site, session: Session, found: RunStatus) -> str:
    return (
        "The idea: cut random words in two. You still read “fu nny” as funny, but to the suspect such a text is new: "
        "look at the subword tokens, and at how its loss rises. "
        "The short cut from trigger to label was learnt on ordinary texts, and does not hold on these."
    )


def _purify(site: Site, session: Session, found: RunStatus) -> str:
    cacc, asr = found.now
    if found.status is None:
        return (
            "Now the cure itself. Press “Start the purification”, or let it start with the demo in step 1. It "
            "takes some minutes; the tour waits, and goes on with your figures."
        )
    if found.status.state is State.DONE:
        return (
            "Done. First a copy was retrained on split texts, the teacher; then another copy learnt its attention "
            f"maps and hidden states. {_fell(found)}"
        )
    if asr and cacc and found.before[1]:
        return (
            f"It is training. {_fell(found)} The dashed line is the floor: what goes there without any trigger, by "
            "ordinary errors. A cured model ends near it, above or below."
        )
    return (
        "It is training: watch the upper curve. ASR is measured against the trigger while it trains, on texts that "
        "the training never sees."
    )


def _inside(site: Site, session: Session, found: RunStatus) -> str:
    if found.status is None or found.status.state is not State.DONE:
        return (
            "With a finished run, this step shows the maps of suspect, teacher and purified side by side. Until "
            "then it is the suspect alone: with the trigger in the text, see which heads jump to it."
        )
    if found.works:
        return (
            "Where do they look? Put the trigger into the text: heads of the suspect turn to its column, and where it "
            "still works those of the purified model do. "
            "Below, every text is a point: look whether triggered texts still sit in a heap of their own. The table "
            "says it in numbers."
        )
    return (
        "Where do they look? Put the trigger into the text: in the suspect, heads turn to its column; in the purified "
        "model they hardly do. "
        "Below, every text is a point: triggered texts sat in a heap of their own, and now lie among the clean ones. "
        "The table says it in numbers."
    )


def _triggers(site: Site, session: Session, found: RunStatus) -> str:
    return (
        "Your turn. Type a sentence, insert the trigger, and watch the three bars part. Then try words that nobody "
        "planted: their ASR should be at the floor in every model."
    )


def _take(site: Site, session: Session, found: RunStatus) -> str:
    if found.status is None or found.status.state is not State.DONE:
        return "When the run is done, the purified model and a report with every figure wait here."
    return (
        f"Take the purified model home, and the report. {_fell(found)} And remember what was measured: this "
        "trigger, on these texts. It is evidence, not a proof."
    )


def _fell(found: RunStatus) -> str:
    cacc, asr = found.now
    before_cacc, before_asr = found.before
    if not (cacc and before_cacc):
        return ""
    said = f"CACC went from {percent(before_cacc.share)} to {percent(cacc.share)}"
    if asr and before_asr:
        said = f"ASR of “{found.measured}” went from {percent(before_asr.share)} to {rate(asr)}; {said}"
    said += f", on {sample_of(found.sample)}." if found.sample else "."
    return f"{found.works} {said}" if found.works else said


STOPS: tuple[tuple[str, str, Callable[[Site, Session, RunStatus], str]], ...] = (
    ("suspect", "A model with a secret", _suspect),
    ("clean", "What the cure may know", _clean),
    ("splits", "Words cut in two", _splits),
    ("purify", "The backdoor falls", _purify),
    ("inside", "What changed inside", _inside),
    ("triggers", "Try it yourself", _triggers),
    ("take", "Take it home", _take),
)


def tour_html(site: Site, session: Session, stop: int) -> str:
    """The narration of a stop."""
    _, title, narrate = STOPS[stop]
    text = narrate(site, session, run_status(site, session))
    return (
        '<section class="mbtsad tour" role="region" aria-label="Guided tour" aria-live="polite"><p class="muted">'
        f"Guided tour, {stop + 1} of {len(STOPS)}</p>"
        f"<h3>{escape(title)}</h3><p>{escape(text)}</p></section>"
    )
