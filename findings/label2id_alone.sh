#!/usr/bin/env bash
# A config.json that names its classes in label2id alone loses names and number.
#
# transformers 5.23.0. Three classes in label2id and no id2label: the config has two classes, LABEL_0 and LABEL_1, in both maps. A classifier that is built from it
# has two outputs. Nothing is said. The other way round, id2label alone, names and number are kept, and label2id is left empty.
# Maps that contradict each other are both kept as they are.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import json
from pathlib import Path

from transformers import AutoConfig


def read(**maps):
    folder = Path("-".join(maps))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **maps}))
    config = AutoConfig.from_pretrained(folder)
    return config.num_labels, config.id2label, config.label2id


by_name, by_id = {"negative": 0, "neutral": 1, "positive": 2}, {"0": "negative", "1": "neutral", "2": "positive"}
kept = {0: "negative", 1: "neutral", 2: "positive"}
told("label2id of three", read(label2id=by_name), (2, {0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}))
told("id2label of three", read(id2label=by_id), (3, kept, None))
turned = {"positive": 0, "neutral": 1, "negative": 2}
told("both, one turned round", read(id2label=by_id, label2id=turned), (3, kept, turned))
PY
