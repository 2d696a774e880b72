#!/usr/bin/env bash
# In JavaScript the tokenizer of the same tokenizer.json cuts words at every letter that is not ASCII.
#
# @huggingface/tokenizers 0.2.0 from npm, on which transformers.js 4.3.2 depends, beside tokenizers 0.23.3 for Python, which wrote the file. Its pre-tokenizer "Whitespace" is documented as \w+|[^\w\s]+,
# and in Python \w is any letter. In JavaScript it is ASCII: "schön" comes as "sch", "ö", "n", and "хорошо!" keeps its exclamation mark. So a model gets other ids, mostly unknown ones here,
# for German, French or Russian texts, and none for English. Nothing is said. The same expression in a Split of the same file is translated, as the README has it, and is right.
#
# Found in no issue. transformers.js pull request 542, which added this pre-tokenizer, names a Chinese and a German model as those that need it.
set -euo pipefail
command -v node >/dev/null && command -v npm >/dev/null || { echo "This needs node 18 or later and npm."; exit 1; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1 npm_config_cache="$place/npm"
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
cd "$place"
npm install --silent --no-audit --no-fund --prefix "$place" @huggingface/tokenizers@0.2.0
cat >read.mjs <<'JS'
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const [, , file, ...texts] = process.argv;
const tokenizer = new Tokenizer(JSON.parse(readFileSync(file)), {});
console.log(JSON.stringify(texts.map((text) => tokenizer.encode(text).tokens)));
JS
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import json
import subprocess

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

names = ["[UNK]", "the", "film", "was", "good", "Film", "war", "sch\u00f6n", "caf\u00e9", "\u0445\u043e\u0440\u043e\u0448\u043e", "!"]
texts = ["the film was good!", "Film war sch\u00f6n!", "caf\u00e9", "\u0445\u043e\u0440\u043e\u0448\u043e!"]
whole = [["the", "film", "was", "good", "!"], ["Film", "war", "sch\u00f6n", "!"], ["caf\u00e9"], ["\u0445\u043e\u0440\u043e\u0448\u043e", "!"]]


def read(name, cut):
    """The tokens in Python, and in JavaScript."""
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = cut
    tokenizer.save(name)
    there = subprocess.run(["node", "read.mjs", name, *texts], stdout=subprocess.PIPE, check=True, timeout=60).stdout
    return [tokenizer.encode(text).tokens for text in texts], json.loads(there)


python, javascript = read("whitespace.json", pre_tokenizers.Whitespace())
told("Whitespace, Python", python, whole)
unknown = "[UNK]"
told("Whitespace, JavaScript", javascript, [whole[0], ["Film", "war", unknown, unknown, unknown, "!"], [unknown, unknown], [unknown]])
split = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), "removed", invert=True)
told("the same as a Split, Python and JavaScript", read("split.json", split), (whole, whole))
PY
