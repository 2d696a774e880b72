#!/usr/bin/env bash
# ART's spectral signatures measure how far points lie from the origin, not from their mean: the poisoned ones can come out as the least suspicious.
#
# adversarial-robustness-toolbox 1.20.1. SpectralSignatureDefense takes the main direction from centered features, as Tran et al. (2018) do, and then projects the features as they are onto it;
# the paper projects the centered ones. So the scores depend on where the origin is: 5 of 100 points that lie apart are the five most suspicious where the others lie around 0; with 20 taken
# from one feature of all points they are the last five, and five clean points go in their place. Features behind a ReLU are nowhere below 0, so their mean is not 0.
# Features that are centered by class beforehand give the paper's order.
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


from types import SimpleNamespace

import numpy as np
from art.defences.detector.poison import SpectralSignatureDefense

draw = np.random.default_rng(0)
features = draw.normal(0, 1, (100, 8))
features[95:, 0] += 8  # five points that lie apart
first = np.eye(8)[0]


def poisoned(features, share=0.05):
    """The points that the defense names, of one class, through a classifier whose last layer gives these features."""
    model = SimpleNamespace(layer_names=["last"], nb_classes=1, get_activations=lambda x, layer, batch_size: x)
    defense = SpectralSignatureDefense(model, features, np.zeros(100, dtype=int), expected_pp_poison=share, eps_multiplier=1.0)
    return sorted(int(i) for i in defense.detect_poison()[0])


def ranks(features):
    """From 0, the most suspicious, to 99."""
    return sorted(np.argsort(np.argsort(-SpectralSignatureDefense.spectral_signature_scores(features)[:, 0]))[95:].tolist())


told("as they are", poisoned(features), [95, 96, 97, 98, 99])
moved = features - 20 * first
told("moved by -20: any of the five named", bool(set(poisoned(moved)) & set(range(95, 100))), False)
told("moved by -20: points named", len(poisoned(moved)), 5)
told("moved by -20: ranks of the five", ranks(moved), [95, 96, 97, 98, 99])
told("moved by +20: ranks of the five", ranks(features + 20 * first), [0, 1, 2, 3, 4])
told("moved by -20, then centered", poisoned(moved - moved.mean(0)), [95, 96, 97, 98, 99])
PY
