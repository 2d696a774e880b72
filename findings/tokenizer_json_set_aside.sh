#!/usr/bin/env bash
# AutoTokenizer does not run the tokenizer.json that it finds: it takes the vocabulary out and builds the rest anew from the model's type.
#
# transformers 5.23.0, tokenizers 0.23.3. A folder holds a tokenizer.json that keeps capitals, and a config.json of type bert; there is no tokenizer_config.json.
# tokenizers reads "Good Films" as Good, Film, ##s. AutoTokenizer gives good, film, ##s: the normalizer of the file is replaced by one that lowers the case, so
# a model that was trained on other ids is asked with these. The same file in a folder of type roberta loses the whole text: only <s> and </s> are left. Nothing is said.
# In a folder of type modernbert, or with "tokenizer_class": "PreTrainedTokenizerFast" in a tokenizer_config.json, the file is run as it is.
#
# Differences between the rebuilt tokenizers of version 5 and their files are known of some models (transformers pull request 44255); this case was not found there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Film", "film", "good", "##s", "Good"]
written = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
written.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
written.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
written.add_special_tokens(names[:4])


def read(kind, **settings):
    folder = Path(f"{kind}{len(settings)}")
    folder.mkdir()
    written.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = AutoTokenizer.from_pretrained(folder)
    return loaded.convert_ids_to_tokens(loaded("Good Films")["input_ids"])


told("tokenizers, from the file", written.encode("Good Films").tokens, ["[CLS]", "Good", "Film", "##s", "[SEP]"])
told("AutoTokenizer, bert", read("bert"), ["[CLS]", "good", "film", "##s", "[SEP]"])
told("AutoTokenizer, roberta", read("roberta"), ["<s>", "</s>"])
told("AutoTokenizer, modernbert", read("modernbert"), ["[CLS]", "Good", "Film", "##s", "[SEP]"])
told("AutoTokenizer, bert, class named", read("bert", tokenizer_class="PreTrainedTokenizerFast"), ["[CLS]", "Good", "Film", "##s", "[SEP]"])
PY
