#!/usr/bin/env bash
# nlpaug's swap of two words writes capitals into texts that have none.
#
# nlpaug 1.1.11. RandomWordAug(action="swap") on "good film" gives "film good" or "Film good", half each: the capital comes where the word at the front is the one swapped with, and not where it is
# the one drawn. It is documented as a swap of neighbors. A corpus in lower case, as many are, gets capitals in front of some of its augmented texts and of no others, so a model that
# tells cases apart can learn who was augmented. delete and split add none.
#
# Other troubles of case in the swap are known (nlpaug issue 82, 2020, closed); this one was found in no issue.
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


def seen(augmenter, text):
    return sorted({augmenter.augment(text)[0] for _ in range(200)})


swap = words.RandomWordAug(action="swap", aug_max=1)
told("two words", seen(swap, "good film"), ["Film good", "film good"])
drawn = [swap.augment("good film")[0] for _ in range(400)]
told("about half of them with a capital", 150 < drawn.count("Film good") < 250, True)
told("three", seen(swap, "a good film"), ["Good a film", "a film good", "good a film"])
texts = [swap.augment("the film was good")[0] for _ in range(200)]
told("some texts of four words begin with a capital", 0 < sum(text[0].isupper() for text in texts) < 100, True)
others = [words.RandomWordAug(action="delete", aug_max=1), words.SplitAug(aug_max=1)]
told("delete and split, with capitals", [text for other in others for text in seen(other, "the film was good") if not text.islower()], [])
PY
