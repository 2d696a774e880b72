#!/usr/bin/env bash
# The paired bootstrap test of deep-significance draws the two models' scores apart, so nothing is paired.
#
# deepsig 1.2.8. bootstrap_test is documented as the paired test of Efron and Tibshirani, for two models on the same texts. It draws texts for the first model and, again, others for the second. What makes a
# text hard for both is not taken out then. A model that is 0.02 better on 50 texts, give or take 0.02, whose scores vary by 0.2 from text to text, has a p-value of 0.25; where the
# same texts are drawn for both no draw of 1000 comes that far, and permutation_test of the same library says 0.001. Shuffling one model's scores among the texts makes hardly a difference.
#
# Found in no issue.
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
from deepsig import bootstrap_test, permutation_test

draw = np.random.default_rng(0)
second = draw.normal(0.7, 0.2, 50)
gain = draw.normal(0.02, 0.02, 50)
first = second + gain
print(f"the first is better by {gain.mean():.3f} on the mean, on {(gain > 0).sum()} of 50 texts")
texts = draw.integers(0, 50, (1000, 50))
told("the same texts for both: p", float(((first[texts] - second[texts]).mean(1) >= 2 * gain.mean()).mean()), 0.0)
told("permutation_test: p", round(permutation_test(first, second, seed=1), 3), 0.001)
found = bootstrap_test(first, second, seed=1)
print("bootstrap_test: p", found)
told("bootstrap_test: between 0.2 and 0.5", 0.2 < found < 0.5, True)
found = bootstrap_test(first, draw.permutation(second), seed=1)
print("the second model's scores shuffled: p", found)
told("shuffled: between 0.2 and 0.5", 0.2 < found < 0.5, True)
PY
