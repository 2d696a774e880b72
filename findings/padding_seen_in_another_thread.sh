#!/usr/bin/env bash
# A thread that sets a model's attention changes the answers of another thread that is in the middle of a forward pass.
#
# transformers 5.23.0, torch 2.13.0, on a CPU. `output_attentions=True` needs the plain attention, so who wants attention maps calls `set_attn_implementation("eager")`
# for that call. The name stands in the config, and each layer looks it up as it comes to it. A forward pass under way in another thread then goes on with the plain
# attention and the mask that was made for PyTorch's: booleans, which the plain attention adds to its scores. So a token that is no padding gets one more, and padding is
# read like text. No error and no warning; a text without padding in its batch is answered as before. The pause in the script only makes sure of the moment.
#
# Known before: in a comment on transformers pull request 48297 (August 2026) another such switch spoils the texts that a thread is generating. That padding enters the
# answers of a classifier was not found written down.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


from threading import Event, Thread, current_thread, main_thread

import torch
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(0)
sizes = dict(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
model = BertForSequenceClassification(BertConfig(**sizes, initializer_range=0.5)).eval()
told("attention", model.config._attn_implementation, "sdpa")

ids = torch.randint(5, 100, (2, 12))
mask = torch.ones_like(ids)
mask[1, 4:] = 0  # the second text has four tokens, and padding
other = torch.where(mask.bool(), ids, 7)  # other numbers in the place of padding
under_way, switched = Event(), Event()


@torch.no_grad()
def answers(tokens):
    return model(input_ids=tokens, attention_mask=mask).logits


def meanwhile(tokens):
    """The answers of a thread, while this one sets the attention for a call of its own."""
    under_way.clear()
    switched.clear()
    found = []
    thread = Thread(target=lambda: found.append(answers(tokens)))
    thread.start()
    under_way.wait(60)
    model.set_attn_implementation("eager")
    switched.set()
    thread.join()
    model.set_attn_implementation("sdpa")
    return found[0]


def apart(one, two):
    return [bool(texts) for texts in (one - two).abs().amax(dim=1) > 1e-3]


alone = answers(ids)
told("alone, padding of another number changes either text", apart(answers(other), alone), [False, False])


def pause(module, given):
    if current_thread() is not main_thread():
        under_way.set()
        switched.wait(60)


model.bert.encoder.layer[0].register_forward_pre_hook(pause)
told("meanwhile, the texts are answered otherwise than alone", apart(meanwhile(ids), alone), [False, True])
told("meanwhile, padding of another number changes either", apart(meanwhile(other), meanwhile(ids)), [False, True])
PY
