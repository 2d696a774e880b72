#!/usr/bin/env bash
# A token that is added to a vocabulary whose ids have a hole takes an id that another token has.
#
# tokenizers 0.23.3. Three tokens with the ids 0, 2 and 3; ids are no longer contiguous once a vocabulary was cut. add_tokens gives the new token the number of tokens, 3,
# and says that one was added. From then on two words have one id, and one row of the embeddings; the id reads back as the new one, so the old word is lost in decoding.
# transformers 5.23.0 does the same through PreTrainedTokenizerFast: len() counts four tokens, and the highest id is 3.
# Known before: tokenizers issue 523 (2021); two changes that would have mended it were closed unmerged.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3 transformers==5.23.0
cd "$place"
venv/bin/python - <<'PY'
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


def with_a_hole():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 2, "bad": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


plain = with_a_hole()
told("before", plain.encode("bad film").ids, [3, 0])
told("tokens added", plain.add_tokens(["film"]), 1)
told("after", plain.encode("bad film").ids, [3, 3])
told("read back", plain.decode([3]), "film")

fast = PreTrainedTokenizerFast(tokenizer_object=with_a_hole(), unk_token="[UNK]")
told("added through transformers", fast.add_tokens(["film"]), 1)
told("both words", fast.convert_tokens_to_ids(["bad", "film"]), [3, 3])
told("length", len(fast), 4)
PY
