#!/usr/bin/env bash
# nlpaug's SplitAug never cuts off the last letter of a word.
#
# nlpaug 1.1.11. A word of n letters has n - 1 places to cut; SplitAug draws among the first n - 2. "film" becomes "f ilm" or "fi lm" and never "fil m", while the first letter is cut off as
# often as any other place is taken. With min_char=3 a word of three letters has one outcome: "bad" is always "b ad". A single letter that it cuts off is always a first one, which a model or
# a detector can learn. Nothing in its description says so.
#
# Found in no issue.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check nlpaug==1.1.11 numpy==2.4.6 pandas==3.1.1
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import random

import nlpaug.augmenter.word as words
import numpy

random.seed(0)
numpy.random.seed(0)


def seen(word, **how):
    return sorted({words.SplitAug(**how).augment(word)[0] for _ in range(300)})


told("film", seen("film"), ["f ilm", "fi lm"])
told("lovely", seen("lovely"), ["l ovely", "lo vely", "lov ely", "love ly"])
told("bad, min_char=3", seen("bad", min_char=3), ["b ad"])
PY
