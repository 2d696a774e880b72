#!/usr/bin/env bash
# The pieces' begin and end in sentencepiece's Python objects became byte offsets where they were character offsets.
#
# sentencepiece 0.2.3 and, for what was before, 0.2.1. In 0.2.1 encode(text, out_type="immutable_proto") gives begin and end in characters, so that text[begin:end] is the piece. 0.2.3 refuses
# that name and says to use return_type="proto"; its begin and end count UTF-8 bytes. For ASCII nothing differs; behind the first accent every cut is off: text[5:11]
# of "café films" lacks the blank and ends past the text. return_type="offset_mapping" of 0.2.3 counts characters.
#
# That serialized messages count bytes was said in sentencepiece issue 266; that the named replacement does was found in no issue.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check sentencepiece==0.2.3 protobuf==7.36.2
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import io
import subprocess

import sentencepiece

texts = ["the film was lovely and the actors were good", "a dull plot and a tired script", "caf\u00e9 films are good", "good good bad bad films"]
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts * 20), model_writer=model, vocab_size=34, minloglevel=2)
open("a.model", "wb").write(model.getvalue())
reader, text = sentencepiece.SentencePieceProcessor(model_file="a.model"), "caf\u00e9 films"
last = reader.encode(text, return_type="proto").pieces[-1]
told("0.2.3, proto: last piece", (last.surface, last.begin, last.end), (" films", 5, 11))
told("0.2.3, proto: the text there", text[last.begin : last.end], "films")
told("0.2.3, offset_mapping: last piece", reader.encode(text, return_type="offset_mapping")["offsets"][-1], (4, 10))
try:
    reader.encode(text, out_type="immutable_proto")
    sys.exit("This has changed: immutable_proto is taken.")
except ValueError as refused:
    print("0.2.3, immutable_proto:", refused)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", "before", "sentencepiece==0.2.1"], check=True)
code = f"import sentencepiece as s; p = s.SentencePieceProcessor(model_file='a.model').encode({text!r}, out_type='immutable_proto').pieces[-1]; print(p.begin, p.end)"
before = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "before"}, capture_output=True, text=True, check=True).stdout.split()
told("0.2.1, immutable_proto: last piece", before, ["4", "10"])
PY
