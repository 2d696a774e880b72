#!/usr/bin/env bash
# nlpaug takes "augment no word" for "no wish given" and changes 30 % of the words.
#
# nlpaug 1.1.11. aug_p=0 (aug_min=0, no aug_max) splits 30 of 100 words, as aug_p=0.3 does; aug_p=0.001 splits one. So a sweep of shares that begins at 0 has its worst point
# there. The share is tested for truth, and 0 is false; the character augmenters' aug_char_p=0 and aug_word_p=0 are kept.
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

import nlpaug.augmenter.char as chars
import nlpaug.augmenter.word as words
import numpy

random.seed(0)
numpy.random.seed(0)
text = " ".join(["wonderful"] * 100)


def split(share):
    return len(words.SplitAug(aug_p=share, aug_min=0, aug_max=None).augment(text)[0].split()) - 100


told("words split, aug_p=0.3", split(0.3), 30)
told("words split, aug_p=0.001", split(0.001), 1)
told("words split, aug_p=0", split(0), 30)
typed = chars.KeyboardAug(aug_word_p=0, aug_char_p=0, aug_word_min=0, aug_char_min=0).augment(text)[0]
told("a character augmenter with 0 leaves the text", typed == text, True)
PY
