#!/usr/bin/env bash
# safetensors.numpy writes the wrong numbers for an array that is not in C order.
#
# safetensors 0.8.0, numpy 2.4.6. A transposed array, one in Fortran order, one read backwards and every second column of one are written without a word and come back with
# the right shape and other numbers. safetensors 0.7.0 wrote all four as they are. np.ascontiguousarray before saving helps.
#
# Known since: safetensors issue 825 (Fortran order), open when this was written.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import numpy as np
from safetensors.numpy import load, save

a = np.arange(6, dtype=np.float32).reshape(2, 3)
told("as it is", load(save({"x": a}))["x"].tolist(), [[0, 1, 2], [3, 4, 5]])
told("its transpose", load(save({"x": a.T}))["x"].tolist(), [[0, 1], [2, 3], [4, 5]])
print("   expected:", a.T.tolist())
for what, array in {"Fortran order": np.asfortranarray(a), "every second column": a[:, ::2], "rows backwards": a[::-1]}.items():
    told(f"{what} comes back as it was", bool(np.array_equal(load(save({"x": array}))["x"], array)), False)
told("made contiguous first", load(save({"x": np.ascontiguousarray(a.T)}))["x"].tolist(), a.T.tolist())
PY
