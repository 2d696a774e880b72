#!/usr/bin/env bash
# ART's spectral signatures measure how far points lie from the origin, not from their mean.
#
# adversarial-robustness-toolbox 1.20.1. SpectralSignatureDefense takes the main direction from centered features, as Tran et al. (2018) do, and then projects the features as they are onto it;
# the paper projects the centered ones. So the scores of the same cloud of points depend on where it lies: around 0 they are the paper's, elsewhere they are not, and their order is another one.
# Features behind a ReLU are nowhere below 0, so their mean is not 0. Features that are centered by class beforehand give the paper's scores.
#
# Perhaps known as bad results without a cause: adversarial-robustness-toolbox issue 593 (2020), closed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check adversarial-robustness-toolbox==1.20.1 numpy==2.4.6 scikit-learn==1.9.1 packaging==26.4
cd "$place"
venv/bin/python -W ignore - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import numpy as np
from art.defences.detector.poison import SpectralSignatureDefense

points = np.random.default_rng(0).normal(0, 1, (100, 8)) * [3, 1, 1, 1, 1, 1, 1, 1]
points -= points.mean(0)


def scores(points):
    return np.asarray(SpectralSignatureDefense.spectral_signature_scores(points)).ravel()


def paper(points):
    """The squared projection of the centered points on their main direction."""
    centered = points - points.mean(0)
    return (centered @ np.linalg.svd(centered, full_matrices=False)[2][0]) ** 2


def same(points):
    """Whether the scores are the paper's, or their roots, and in the same order."""
    found, right = scores(points), paper(points)
    equal = np.allclose(found, right) or np.allclose(np.abs(found), np.sqrt(right))
    return bool(equal), bool((np.argsort(np.abs(found)) == np.argsort(right)).all())


told("around 0: the paper's, in its order", same(points), (True, True))
told("moved by 5: the paper's, in its order", same(points + 5), (False, False))
told("moved by 5, then centered", same(points + 5 - (points + 5).mean(0)), (True, True))
PY
