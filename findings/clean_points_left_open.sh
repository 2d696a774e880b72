#!/usr/bin/env bash
# Where ART's silhouette analysis finds a poisoned cluster, it leaves the clean points of that class undecided: their values are whatever the memory held.
#
# adversarial-robustness-toolbox 1.20.1. ActivationDefence with cluster_analysis="silhouette-scores", a class of 90 points and 10 that lie apart. The report is right: sizes 90 and 10, suspicious.
# But the small cluster is entered as clean and as poisoned, the large one as neither, and the array it is looked up in begins uninitialized. So the 90 are not called clean:
# those whose value is not 1 by chance go with the 10. cluster_analysis="smaller" calls the 10 poisoned and the 90 clean.
#
# Known before: a value such as 4e-316 in that array, adversarial-robustness-toolbox issue 186 (2019), closed.
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

logging.disable(logging.WARNING)  # of few features
draw = np.random.default_rng(0)
features = draw.normal(0, 1, (200, 40))
features[90:100] += 10  # the first class: ten points lie apart
features[100:150] += 10  # the second class: two halves
classes = np.repeat([0, 1], 100)
model = SimpleNamespace(layer_names=["last"], nb_classes=2, get_activations=lambda x, layer, batch_size: x)


def clean(how):
    """How many points are called clean: of the 90, of the 10 and of the other class."""
    report, found = ActivationDefence(model, features, classes).detect_poison(nb_clusters=2, nb_dims=2, reduce="PCA", cluster_analysis=how)
    return report, [sum(found[:90]), sum(found[90:100]), sum(found[100:])]


report, counts = clean("silhouette-scores")
told("silhouette-scores, report", [report[f"class_{i}"]["suspicious"] for i in (0, 1)], [True, False])
told("silhouette-scores, all of the 90 called clean", counts[0] == 90, False)
print("   of the 90 called clean:", counts[0])
told("silhouette-scores, the others", counts[1:], [0, 100])
told("smaller, first class", clean("smaller")[1][:2], [90, 0])
PY
