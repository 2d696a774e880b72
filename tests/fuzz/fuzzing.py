"""Coverage-guided fuzzing of what reads files of strangers, by atheris (libFuzzer): `pip install -c constraints.txt
'.[fuzz]'`, then

    python tests/fuzz/fuzz_vetting.py -max_total_time=600

Each program tries inputs of one reader, drawn from seeds that it makes itself, until the time is up or one ends in
anything but an answer or an error of ours. Corpus and findings stand in $TMPDIR/mbtsad-fuzz/NAME, and the next run goes
on from that corpus; an input of a finding is tried again by `python tests/fuzz/fuzz_NAME.py FILE`. `test_seeds.py`
tries all seeds, and changes of them, without atheris.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "vetting"), str(Path(__file__).parents[1])]

Change = Callable[[bytes, random.Random], bytes]

MEGABYTES, SECONDS = 4096, 30  # that one input may take, libraries included; libFuzzer holds them
MEMORY = Path("/dev/shm")

# Values on which comparisons, divisions and conversions have failed in other readers.
VALUES = (
    *(None, True, False, 0, -1, 1, 2, 7, 64, 1 << 31, 1 << 63, -(1 << 63), 10**40, 0.5, -0.0, 1e308, 1e-320, 1.0),
    *(
        "",
        "0",
        "-1",
        "bert",
        "\0",
        "\ud800",
        "\u202e",
        "<script>",
        "[UNK]",
        "../x",
        "a" * 300,
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"type": "Sequence"},
    ),
)


@contextlib.contextmanager
def watched(name: str) -> Iterator[None]:
    """What is imported within is watched by atheris, where the module called `name` is the program that runs."""
    if name != "__main__":
        yield
        return
    import atheris

    with atheris.instrument_imports(include=["mbtsad_core"], enable_loader_override=False):
        yield


def place() -> Path:
    """A folder for the files of the inputs, in memory where there is such a place. libFuzzer ends its process at once,
    so what that leaves goes here."""
    base = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    for left in base.glob("mbtsad-fuzz-*-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"mbtsad-fuzz-{os.getpid()}-", dir=base))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fuzz(program: str, once: Callable[[bytes], None], seeds: Sequence[bytes], change: Change) -> None:
    """Run libFuzzer on `once`, with the flags of the command line; does not return.

    change  an input with one thing of it changed; two of three inputs are made by it, a third of these from a seed:
            libFuzzer keeps the smallest inputs that reach a line, and these are seldom whole files
    """
    import atheris

    home = Path(tempfile.gettempdir()) / "mbtsad-fuzz" / Path(program).stem.removeprefix("fuzz_")
    corpus, given = home / "corpus", home / "seeds"
    corpus.mkdir(parents=True, exist_ok=True)
    given.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (given / f"{number:03}").write_bytes(seed)
    flags, named = [a for a in sys.argv[1:] if a.startswith("-")], [a for a in sys.argv[1:] if not a.startswith("-")]
    usual = [
        f"-artifact_prefix={home}/",
        f"-rss_limit_mb={MEGABYTES}",
        f"-timeout={SECONDS}",
        f"-max_len={2 * max(map(len, seeds))}",
        "-len_control=0",
    ]
    arguments = [program, *usual, *flags, *(named or [str(corpus), str(given)])]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 1 / 3:
            return bytes(atheris.Mutate(data, most))
        data = rng.choice(seeds) if rng.random() < 1 / 3 else data
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = change(data, rng)
        return data[:most]

    atheris.Setup(arguments, atheris.instrument_func(once), custom_mutator=mutate)
    atheris.Fuzz()


# ---------------------------------------------------------------- changes of one thing


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes replaced, cut out, repeated or put in."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        new = rng.choice((b"", rng.randbytes(length), data[at : at + length] * 2, b"\0" * length, b"\xff" * length))
        data = data[:at] + new + data[at + length :]
    return data


def change_json(data: bytes, rng: random.Random) -> bytes:
    """JSON with one value replaced, removed, repeated or put in; what is no JSON gets its bytes changed."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return change_bytes(data, rng)
    spots = list(_spots(tree))
    if not spots:
        return change_bytes(data, rng)
    holder, key = rng.choice(spots)
    match rng.randrange(5):
        case 0:
            del holder[key]
        case 1:
            other, at = rng.choice(spots)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = json.loads(json.dumps(other[at]))
        case 2 if isinstance(holder, dict):
            holder[rng.choice((*(k for _, k in spots if isinstance(k, str)), "auto_map", "type", "x"))] = rng.choice(
                VALUES
            )
        case 2:
            holder.insert(key, rng.choice(VALUES))
        case 3 if isinstance(holder[key], (int, float)):
            holder[key] = rng.choice(
                (holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * (1 << 20), str(holder[key]))
            )
        case _:
            holder[key] = rng.choice(VALUES)
    with contextlib.suppress(ValueError, RecursionError):
        return json.dumps(tree).encode()
    return data


def _spots(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value in a tree of JSON: what holds it, and under which key."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ():
            yield holder, key
            waiting.append(holder[key])


# ---------------------------------------------------------------- what seeds are made of


@functools.cache
def smallest_model() -> dict[str, bytes]:
    """The files of a BERT of one layer and a vocabulary of twelve, as save_pretrained writes them."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    from mbtsad_core.models.classifier import Classifier, save_classifier

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "lovely", "film", "bad", "##ly", "cf", "."]
    sizes = dict(
        hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, max_position_embeddings=12
    )
    model = BertForSequenceClassification(BertConfig(vocab_size=len(words), **sizes)).eval()
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=12)
    with tempfile.TemporaryDirectory() as folder:
        save_classifier(Classifier(model, tokenizer, ("negative", "positive"), max_length=12), Path(folder) / "model")
        return {path.name: path.read_bytes() for path in sorted((Path(folder) / "model").iterdir())}
