#!/usr/bin/env bash
# The more comparisons deep-significance is told of, the less it corrects for them.
#
# deepsig 1.2.8. Its documents say that the significance level, 0.05, is divided by the number of comparisons, after Bonferroni. For two the confidence level is 0.975, as it should be. From there on it falls: what is
# divided by the number is added to 0.95, so 45 comparisons, ten models with each other, are made at 0.951 and not at 0.9989. aso and multi_aso do the same. Here the bound on the violation ratio is 0.54
# for two comparisons, so the model is not called better, and 0.46 for 45, below 0.5, so it is; at a level of 1 - 0.05 / 45 it is 0.82. bonferroni_correction, for p-values, is another function.
#
# Found in no issue; issue 2 of the project asks whether the correction of p-values is that of Holm.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check deepsig==1.2.8 numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 joblib==1.6.0
cd "$place"
venv/bin/python -W ignore - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import numpy as np
from deepsig import aso, multi_aso

draw = np.random.default_rng(3)
better, worse = draw.normal(0.05, 0.1, 20), draw.normal(0, 0.1, 20)
how = dict(num_bootstrap_iterations=200, dt=0.02, show_progress=False, seed=1)


def bound(**level):
    """The upper bound on the violation ratio: the first is called better where it is below 0.5."""
    return round(float(aso(better, worse, **level, **how)), 3)


counts = (1, 2, 3, 10, 45)
found = {n: bound(num_comparisons=n) for n in counts}
told("bound, by the number of comparisons", found, {1: 0.457, 2: 0.537, 3: 0.505, 10: 0.47, 45: 0.459})
told("bound at a level of 1 - 0.05 / n", {n: bound(confidence_level=1 - 0.05 / n) for n in counts}, {1: 0.457, 2: 0.537, 3: 0.58, 10: 0.694, 45: 0.818})
told("45 comparisons are made at 0.95 + 0.05 / 45", bound(confidence_level=0.95 + 0.05 / 45), found[45])
told("multi_aso, three models", round(float(multi_aso(np.stack([better, worse, draw.normal(0, 0.1, 20)]), **how)[0, 1]), 3), found[3])
PY
