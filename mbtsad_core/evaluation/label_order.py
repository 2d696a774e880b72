"""Whether the labels of a test set are the model's at all: a model that is right under other names is asked about, not
called bad."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.rates import wilson
from mbtsad_core.types import Scores


def label_doubt(scores: Scores, labels: Sequence[str]) -> str | None:
    """What speaks against the labels, None where nothing does.

    The answers go to classes one to one by the assignment that agrees with most of them. Where it gives two classes or
    more to others, and most texts of these are answered so and not as they are labeled (Wilson 95 % intervals on both
    sides of a half), the labels are in another order than the model's classes, as far as can be seen. Without such an
    order, a CACC that is surely below 1 / classes is doubted too.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    counts = np.array(scores.confusion)
    answered = [int(j) for j in linear_sum_assignment(counts, maximize=True)[1]]
    moved = [i for i, j in enumerate(answered) if i != j and counts[i].any()]
    n = int(counts[moved].sum())
    if len(moved) > 1:
        others, own = (wilson(sum(int(counts[i, to[i]]) for i in moved), n) for to in (answered, range(len(labels))))
        if others.low > 0.5 > own.high:
            pairs = ", ".join(f"{labels[i]} as {labels[answered[i]]}" for i in moved)
            plain = not any(sign in name for name in labels for sign in ",=")
            names = labels if plain else [str(i) for i in range(len(labels))]
            flag = ",".join(f"{names[i]}={names[j]}" for i, j in enumerate(answered))
            return (
                f"ARE THE LABELS IN THE MODEL'S ORDER? CACC is {100 * scores.cacc.share:.1f} %, but {others.hits} of "
                f"the {n} texts of {len(moved)} classes are answered as if these were called otherwise ({pairs}). If "
                f"so, say it with `label_map` {flag}"
            )
    if scores.cacc.high < 1 / len(labels):
        return (
            f"ARE THE LABELS THE MODEL'S? CACC is {100 * scores.cacc.share:.1f} %, less than guessing among "
            f"{len(labels)} classes gives. Check what the labels of the table mean, and say it with `label_map`."
        )
    return None
