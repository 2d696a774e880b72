"""The weight of each token under the text: which tokens drive an answer."""

from __future__ import annotations

from collections.abc import Collection

from mbtsad_core.evaluation.attribution import Attribution
from mbtsad_core.views.document import TEMPLATES, render

TOKENS_STYLE = (TEMPLATES / "tokens.css").read_text("utf-8")
METHODS = {"gradient": "gradient times input", "integrated": "integrated gradients"}


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
    tokens = [
        {
            "text": token,
            "kind": " marked" if i in marked else " special" if token.startswith("[") and token.endswith("]") else "",
            "weight": weight,
            "height": min(18.0, 18 * abs(weight) / full),
            "number": f"{weight:+.{digits}f}" if abs(weight) >= 0.5 / 10**digits else "0",
        }
        for i, (token, weight) in enumerate(zip(found.tokens, found.weights, strict=True))
    ]
    return render("tokens.html", found=found, how=METHODS.get(found.method, found.method), tokens=tokens)
