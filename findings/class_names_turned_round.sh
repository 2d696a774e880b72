#!/usr/bin/env bash
# Casting a column of classes to the same names in another order keeps the numbers, so every text changes its class.
#
# datasets 5.2.0. A column ClassLabel(["pos", "neg"]) that is cast to ClassLabel(["neg", "pos"]) keeps 0 and 1: what was "pos" is "neg". The same happens to a Parquet file that
# declares its class names, when it is loaded with features= that name them in another order: the file's own names are set aside. Nothing is said.
# concatenate_datasets refuses the same pair. Strings that are cast are looked up by name, and Dataset.align_labels_with_mapping renumbers.
#
# Related, not the same: datasets issue 8596, numbers out of range that are taken.
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
from datasets import ClassLabel, Dataset, Features, concatenate_datasets, load_dataset

datasets.disable_progress_bars()
turned, wanted = ClassLabel(names=["pos", "neg"]), ClassLabel(names=["neg", "pos"])
first = Dataset.from_dict({"label": [0, 1]}, features=Features({"label": turned}))


def names(data):
    return [data.features["label"].int2str(i) for i in data["label"]]


told("before", names(first), ["pos", "neg"])
told("cast", names(first.cast_column("label", wanted)), ["neg", "pos"])
first.to_parquet("data.parquet")
told("the Parquet file by itself", names(load_dataset("parquet", data_files="data.parquet", split="train")), ["pos", "neg"])
told("loaded with features=", names(load_dataset("parquet", data_files="data.parquet", split="train", features=Features({"label": wanted}))), ["neg", "pos"])
told("strings, cast", names(Dataset.from_dict({"label": ["pos", "neg"]}).cast_column("label", wanted)), ["pos", "neg"])
told("aligned", names(first.align_labels_with_mapping({"neg": 0, "pos": 1}, "label")), ["pos", "neg"])
try:
    concatenate_datasets([first, Dataset.from_dict({"label": [0]}, features=Features({"label": wanted}))])
    sys.exit("This has changed: both are put together.")
except ValueError as refused:
    print("concatenate_datasets refuses:", str(refused)[:60], "...")
PY
