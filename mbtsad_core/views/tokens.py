"""The weight of each token under the text: which tokens drive an answer."""

from __future__ import annotations

from collections.abc import Collection
from html import escape

from mbtsad_core.evaluation.attribution import Attribution
from mbtsad_core.views.words import percent

TOKENS_STYLE = """
.tokens { --for:#B2182B; --against:#2166AC; } .dark .tokens { --for:#e5677a; --against:#5fa2dd; } /* the ends of the blue-white-red scale */
@media (prefers-color-scheme: dark) { .standalone .tokens { --for:#e5677a; --against:#5fa2dd; } }
.tokens .line { display: flex; flex-wrap: wrap; gap: 10px 2px; margin: 8px 0; }
.tokens .token { display: flex; flex-direction: column; align-items: center; min-width: 16px; padding: 0 2px; }
.tokens .token b { font-weight: 400; font-size: 15px; line-height: 20px; border-bottom: 2px solid transparent; overflow-wrap: anywhere; }
.tokens .token.special b { color: var(--muted); font-size: 12px; }
.tokens .token.marked b { font-weight: 700; border-bottom-color: var(--ink); }
.tokens .bar { position: relative; width: 100%; min-width: 14px; height: 37px; }
.tokens .bar::before { content: ""; position: absolute; left: 0; right: 0; top: 18px; height: 1px; background: var(--line); }
.tokens .bar i { position: absolute; left: 12%; right: 12%; background: var(--for); }
.tokens .bar i.for { bottom: 18px; } .tokens .bar i.against { top: 19px; background: var(--against); }
.tokens .token small { font-size: 10px; line-height: 12px; color: var(--muted); }
.tokens .key i { display: inline-block; width: 10px; height: 10px; background: var(--for); } .tokens .key i.against { background: var(--against); }
"""


def tokens_html(found: Attribution, *, marked: Collection[int] = (), scale: float | None = None) -> str:
    """Each token with a bar that rises where it speaks for the answer and falls where it speaks against it, and its
    weight in nats.

    marked  positions of a trigger's tokens: bold and underlined
    scale   the weight, in nats, of a full bar; give the same to several texts or models to compare them. Default: the
            largest here
    Needs STYLE and TOKENS_STYLE.
    """
    full = scale or max((abs(w) for w in found.weights), default=0.0) or 1.0
    digits = 1 if full >= 3 else 2
    cells = []
    for i, (token, weight) in enumerate(zip(found.tokens, found.weights, strict=True)):
        side = "for" if weight >= 0 else "against"
        kind = " marked" if i in marked else " special" if token.startswith("[") and token.endswith("]") else ""
        height = min(18.0, 18 * abs(weight) / full)
        number = f"{weight:+.{digits}f}" if abs(weight) >= 0.5 / 10**digits else "0"
        cells.append(
            f'<span class="token{kind}" title="{escape(token)}: {weight:+.3f} nats"><b>{escape(token)}</b>'
            f'<span class="bar"><i class="{side}" style="height:{height:.1f}px"></i></span><small>{number}</small>'
            "</span>"
        )
    label = escape(found.label)
    how = {"gradient": "gradient times input", "integrated": "integrated gradients"}.get(
        found.method, escape(found.method)
    )
    rest = f"; {found.missing:+.2f} not accounted for" if found.missing is not None else ""
    return (
        f'<section class="mbtsad tokens" aria-label="What each token adds to the answer {label}"><div>Answer <strong>'
        f"{label}</strong>, "
        f'{percent(found.probability)} <span class="muted key">· <i></i> up: for {label} · <i class="against"></i> '
        "down: against · "
        f'log-odds in nats, {how}{rest}</span></div><div class="line">{"".join(cells)}</div></section>'
    )
