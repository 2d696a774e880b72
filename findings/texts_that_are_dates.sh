#!/usr/bin/env bash
# A column of texts in JSON lines stops being text when all of them look like dates.
#
# datasets 5.2.0 (pyarrow 26.0.1). {"text": "2021-01-01"} and the like: the column is timestamp, each text a datetime, and as text again it reads otherwise
# ("2022-02-02T10:00:00" comes back with a space, "2021-01-01" with a time of day). features= that says string does not help: the column is string then, and its
# texts are the changed ones. One line that is no date keeps all of them as they are. The CSV reader of the same library leaves them as they are.
#
# A known consequence is a load that fails where the lines of a large file differ (huggingface/course issue 692).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


from pathlib import Path

import datasets
from datasets import Features, Value, load_dataset

datasets.disable_progress_bars()


def read(name, *texts, **how):
    Path(name).write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    data = load_dataset("json", data_files=name, split="train", **how)
    return str(data.features["text"].dtype), [str(text) for text in data["text"]]


dates = ("2021-01-01", "2022-02-02T10:00:00")
told("dates alone", read("dates.jsonl", *dates), ("timestamp[s]", ["2021-01-01 00:00:00", "2022-02-02 10:00:00"]))
told("and a text", read("mixed.jsonl", *dates, "good"), ("string", [*dates, "good"]))
asked = read("told.jsonl", *dates, features=Features({"text": Value("string")}))
told("asked for as strings, with features=", asked, ("string", ["2021-01-01 00:00:00", "2022-02-02 10:00:00"]))
Path("dates.csv").write_text("text\n" + "\n".join(dates) + "\n")
data = load_dataset("csv", data_files="dates.csv", split="train")
told("as CSV", (data.features["text"].dtype, data["text"][:]), (data.features["text"].dtype, list(dates)))
PY
