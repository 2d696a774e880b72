#!/usr/bin/env bash
# nlpaug's word augmenters cut words at every combining mark: Hindi is taken apart into single letters, and its vowel signs change places as words.
#
# nlpaug 1.1.11. Its tokenizer splits at all that the regular expression \\W matches, and in Python that is every vowel sign of Devanagari, every point of pointed Arabic and
# every accent of a decomposed text. RandomWordAug(action="swap") gives 15 pieces for 5 words, and marks change places as words do;
# "one word" of the budget is one letter. SplitAug finds no word of four letters and changes nothing. French with composed accents is handled by words, the same text decomposed is not.
#
# Not searched for in issues.
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
import unicodedata

import nlpaug.augmenter.word as words
import numpy

random.seed(1)
numpy.random.seed(1)
hindi = "\u092f\u0939 \u092b\u093f\u0932\u094d\u092e \u092c\u0939\u0941\u0924 \u0905\u091a\u094d\u091b\u0940 \u0939\u0948"  # this film is very good
swap = words.RandomWordAug(action="swap", aug_max=1)
found = swap.augment(hindi)[0]
print(found)
told("words given", len(hindi.split()), 5)
told("pieces returned", len(found.split()), 15)
told("marks that stand as words", sum(unicodedata.category(piece[0]).startswith("M") for piece in found.split()), 6)
told("SplitAug, ten times", {words.SplitAug().augment(hindi)[0] for _ in range(10)}, {hindi})
composed = "le caf\u00e9 \u00e9tait tr\u00e8s bon"
told("composed accents: pieces", len(swap.augment(composed)[0].split()), 5)
told("decomposed accents: pieces", len(swap.augment(unicodedata.normalize("NFD", composed))[0].split()), 10)
PY
