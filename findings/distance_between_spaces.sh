#!/usr/bin/env bash
# ART's activation clustering measures distances between classes after each class was put into a space of its own: how far apart they lie makes no difference.
#
# adversarial-robustness-toolbox 1.20.1. ActivationDefence with cluster_analysis="distance" calls a cluster poisoned that lies closer to another class than to its own. The points of each class are
# reduced by a PCA (or FastICA) of that class alone, which centers them, so all classes lie around 0 when they are compared. Twenty points that lie about 10 away from their class and 1010 from the
# other one are 8 from the other class in the report, and called poisoned; with the other class at 10, 1000 or 100000 the report has the same numbers. Where nothing is reduced, with nb_dims
# not smaller than the number of features, the distances are right and the twenty are clean. The default reduces to 10.
#
# Found in no issue.
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


import logging
from types import SimpleNamespace

import numpy as np
from art.defences.detector.poison import ActivationDefence

logging.disable(logging.INFO)
draw = np.random.default_rng(0)
one, other = draw.normal(0, 1, (100, 40)), draw.normal(0, 1, (100, 40))
one[80:, 0] -= 10  # twenty points of the first class lie apart, on the side that is away from the other class
classes = np.repeat([0, 1], 100)
model = SimpleNamespace(layer_names=["last"], nb_classes=2, get_activations=lambda x, layer, batch_size: x)


def measured(away, dims):
    """The twenty points' distances to their own class and to the other one, in the report, and how many are called clean."""
    features = np.vstack([one, other])
    features[100:, 0] += away
    report, clean = ActivationDefence(model, features, classes).detect_poison(nb_clusters=2, nb_dims=dims, reduce="PCA", cluster_analysis="distance")
    clusters = [report["Class_0"][f"cluster_{i}"] for i in (0, 1)]
    apart = max(range(2), key=lambda i: float(clusters[i][f"cluster{i}_distance_to_its_class"]))
    distances = clusters[apart][f"cluster{apart}_distance_to_its_class"], clusters[apart]["distance_to_class_1"]
    return [round(float(d)) for d in distances], sum(clean[80:100])


told("other class 10 away, reduced", measured(10, 2), ([9, 8], 0))
told("other class 1000 away, reduced", measured(1000, 2), ([9, 8], 0))
told("other class 100000 away, reduced", measured(100000, 2), ([9, 8], 0))
told("other class 1000 away, not reduced", measured(1000, 40), ([9, 1010], 20))
PY
