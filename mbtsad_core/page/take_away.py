"""Step 7: the purified model, the report, and the figures, to take home."""

from __future__ import annotations

from html import escape
from typing import Any

from mbtsad_core.page.components import html
from mbtsad_core.page.handlers import told
from mbtsad_core.page.parts import Parts, empty, lede
from mbtsad_core.page.run_status import run_status
from mbtsad_core.page.session import Session
from mbtsad_core.service.store import State
from mbtsad_core.views.words import duration, percent

FILES = {
    "model.zip": (
        "Purified model",
        "Weights as safetensors, tokenizer, and a model card with the measured figures; "
        "AutoModelForSequenceClassification.from_pretrained loads the unpacked folder.",
    ),
    "report.html": (
        "Report",
        "One file with figures, curves and settings that needs nothing else; print it or send it.",
    ),
    "report.json": ("Figures as JSON", "Every figure, with counts and intervals, and every setting."),
}
JOBS_ROUTE = "/mbtsad/jobs/{id}/{name}"


def take_step(parts: Parts) -> None:

    site = parts.site
    lede(
        "Take the purified model and the evidence home. Measured is measured: a low ASR on one trigger does not prove "
        "that no other backdoor is left."
    )
    box = html(elem_id="take-away")

    @told
    def show(session: Session) -> str:
        found = run_status(site, session)
        if found.status is None or found.status.state is not State.DONE:
            state = {State.EXPIRED: "This run has expired and its files are gone: start a new one in step 4."}
            why = "There is nothing to take away yet: the purified model comes with a finished run. Start it in step 4."
            if found.moving:
                why = "The run is not done yet. Its files appear here when it is."
            return empty(found.gone or state.get(found.status.state if found.status else State.QUEUED, why))
        result = site.runner.job(session.job).result or {}
        return _box(session, result, site.config.keep, found.works)

    parts.opened["take"] = [(show, parts.session, box)]


def _box(session: Session, result: dict[str, Any], keep: float, works: str = "") -> str:
    suspect, purified = result["suspect"], result["purified"]
    said = f"CACC {percent(suspect['cacc'])} → {percent(purified['cacc'])}"
    if purified.get("asr") is not None:
        said += (
            f", ASR {percent(suspect['asr'])} → {percent(purified['asr'])} ({purified['asr_hits']} of "
            f"{purified['asr_n']}, floor {percent(purified['asr_floor'])})"
        )
    tokens = ", ".join(f"“{token}”" for token, _ in result.get("found", result.get("stumbled", ())))
    found_tokens = (
        f"<p>The trigger scan found {escape(tokens)}, which turn the suspect wherever they stand.</p>" if tokens else ""
    )
    first = f'<p class="works">{escape(works)}</p>' if works else ""
    links = "".join(
        f'<li><a class="download" href="{escape(JOBS_ROUTE.format(id=session.job, name=name).lstrip("/"))}" '
        f'download="mbtsad-{escape(name)}">'
        f"{escape(title)}</a> <span class='muted'>{escape(name)}</span><p>{escape(text)}</p></li>"
        for name, (title, text) in FILES.items()
    )
    return (
        f'<section class="mbtsad card take" aria-label="Downloads">{first}<h3>{escape(said)}</h3><p class="muted">'
        f"{escape(session.suspect.name)}, purified with "
        f"{result['settings']['clean_texts']} clean texts in {duration(result['seconds'])}. Kept here for {keep:g} "
        f"hours from its end.</p>{found_tokens}<ul>{links}</ul></section>"
    )
