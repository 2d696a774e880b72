#!/usr/bin/env bash
# Dataset.class_encode_column renumbers labels that are numbers already, in the order of their digits as text.
#
# datasets 5.2.0. Labels 0 to 10: 10 becomes class 2, and 2 to 9 move up by one. With ten classes or fewer from 0 nothing moves, so the first table with eleven shows it.
# Labels -1, 0 and 1 become 0, 1 and 2. The number of a class no longer is the one that a model's output has.
#
# The sorting of names is documented; that numbers are sorted as text is not. A project that uses it met this: flairNLP/fabricator issue 51.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import datasets
from datasets import Dataset

datasets.disable_progress_bars()


def encoded(labels):
    data = Dataset.from_dict({"label": labels}).class_encode_column("label")
    return dict(zip(labels, data["label"]))


told("ten classes", encoded(list(range(10))), {i: i for i in range(10)})
told("eleven classes", encoded(list(range(11))), {0: 0, 1: 1, 10: 2} | {i: i + 1 for i in range(2, 10)})
told("-1, 0, 1", encoded([-1, 0, 1]), {-1: 0, 0: 1, 1: 2})
PY
