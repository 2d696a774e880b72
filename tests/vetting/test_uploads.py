"""Uploads: a valid model is taken in all its dresses; each hostile one differs from it in one thing, is refused for
that, and leaves nothing."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import random
import re
import resource
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_bert

from mbtsad_core.config import UploadConfig
from mbtsad_core.models.classifier import load_classifier, save_classifier, weights_hash
from mbtsad_core.vetting.uploads import MEGABYTE, FileVerdict, PolicyReport, printable, receive

Files = dict[str, bytes]
Entry = tuple[str | zipfile.ZipInfo, bytes]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of the tiny model, as save_pretrained writes them."""
    directory = tmp_path_factory.mktemp("model")
    save_classifier(tiny_bert(), directory)
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


class House:
    """A place for uploads and the models made of them; `send` and `send_zip` also look at what is left there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "temporary").mkdir()
        (root / "models").mkdir()
        self.target = root / "models" / "upload"

    def place(self, data: bytes) -> Path:
        path = self.root / "temporary" / f"upload{len(list((self.root / 'temporary').iterdir()))}"
        path.write_bytes(data)
        return path

    def send(self, files: Files | Sequence[tuple[str, bytes]], config: UploadConfig = UploadConfig()) -> PolicyReport:
        named = files.items() if isinstance(files, dict) else files
        return self.receive([(name, self.place(data)) for name, data in named], config)

    def send_zip(self, data: bytes, config: UploadConfig = UploadConfig(), name: str = "model.zip") -> PolicyReport:
        return self.receive([(name, self.place(data))], config)

    def receive(self, sources: Sequence[tuple[str, Path]], config: UploadConfig = UploadConfig()) -> PolicyReport:
        before = self.everything()
        report = receive(sources, self.target, config)
        kept = {path.relative_to(self.root).as_posix() for path in self.everything() - before}
        if report.accepted:
            names = {f.name.rpartition("/")[2] for f in report.files if f.verdict == "accepted"}
            assert kept == {"models/upload", *(f"models/upload/{name}" for name in names)}
        else:
            assert not kept
        return report

    def everything(self) -> set[Path]:
        return set(self.root.rglob("*"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    (tmp_path / "house").mkdir()
    return House(tmp_path / "house")


def zipped(entries: Files | Sequence[Entry], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            archive.writestr(name, data, compress_type=method)
    return out.getvalue()


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def weights(size: int) -> bytes:
    """A safetensors file of one tensor of zeros, of `size` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def verdicts(report: PolicyReport) -> dict[str, str]:
    return {f.name: f.verdict for f in report.files}


def refusal(report: PolicyReport) -> FileVerdict:
    """The one file that is refused."""
    assert not report.accepted
    (found,) = [f for f in report.files if f.verdict == "refused"]
    assert report.problem == f"Refused: {found.reason}"
    assert report.rule == found.rule
    return found


# ---------------------------------------------------------------- what is taken


def test_separate_files_are_taken_as_they_are(house: House, model: Files) -> None:
    report = house.send(model)
    assert report.accepted
    assert report.problem == ""
    assert set(verdicts(report).items()) == {(name, "accepted") for name in model}
    assert {p.name: p.read_bytes() for p in house.target.iterdir()} == model


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("folder", ["", "tiny/", "tiny model (1)/"])
@pytest.mark.parametrize("name", ["model.zip", "MODEL.ZIP"])
def test_a_zip_is_taken_with_or_without_its_folder(
    house: House, model: Files, method: int, folder: str, name: str
) -> None:
    assert house.send_zip(zipped({folder + n: data for n, data in model.items()}, method), name=name).accepted
    assert {p.name: p.read_bytes() for p in house.target.iterdir()} == model


def test_files_of_an_uploaded_folder_are_taken_without_it(house: House, model: Files) -> None:
    assert house.send({f"tiny/{name}": data for name, data in model.items()}).accepted


def test_a_zip_may_hold_entries_for_its_folders(house: House, model: Files) -> None:
    entries: list[Entry] = [
        (entry("tiny/", stat.S_IFDIR | 0o755), b""),
        *((f"tiny/{name}", data) for name, data in model.items()),
    ]
    report = house.send_zip(zipped(entries))
    assert report.accepted
    assert "tiny/" not in verdicts(report)


def test_a_zip_of_the_shell_is_taken(house: House, model: Files, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    for name, data in model.items():
        (tmp_path / "tiny" / name).write_bytes(data)
    assert house.send_zip(
        Path(shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path, "tiny")).read_bytes()
    ).accepted


def test_what_was_taken_loads(house: House, model: Files) -> None:
    house.send_zip(zipped(model))
    assert weights_hash(load_classifier(house.target)) == weights_hash(tiny_bert())


def test_weights_in_several_files_are_taken(house: House, tmp_path: Path) -> None:
    tiny_bert().model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    tiny_bert().tokenizer.save_pretrained(tmp_path / "sharded")
    files = {p.name: p.read_bytes() for p in (tmp_path / "sharded").iterdir()}
    assert "model.safetensors.index.json" in files
    assert house.send_zip(zipped(files)).accepted
    assert weights_hash(load_classifier(house.target)) == weights_hash(tiny_bert())


@pytest.mark.parametrize(
    "name", ["special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"]
)
def test_further_files_of_a_tokenizer_are_taken(house: House, model: Files, name: str) -> None:
    assert verdicts(house.send(model | {name: b"{}"}))[name] == "accepted"


@pytest.mark.parametrize("pack", [False, True])
def test_no_other_user_can_read_what_was_taken(house: House, model: Files, pack: bool) -> None:
    if pack:
        house.send_zip(
            zipped([(entry(name, stat.S_IFREG | stat.S_ISUID | 0o777), data) for name, data in model.items()])
        )
    else:
        house.send(model)
    assert stat.S_IMODE(house.target.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in house.target.iterdir()} == {0o600}


def test_the_upload_itself_is_left_alone(house: House, model: Files) -> None:
    paths = [(name, house.place(data)) for name, data in model.items()]
    house.receive(paths)
    assert {name: path.read_bytes() for name, path in paths} == model


IGNORED = [
    ("README.md", "ignore.text"),
    ("readme", "ignore.text"),
    ("LICENSE", "ignore.text"),
    ("model_card.md", "ignore.text"),
    ("chat_template.jinja", "ignore.text"),
    ("confusion.png", "ignore.text"),
    (".gitattributes", "ignore.system"),
    (".DS_Store", "ignore.system"),
    ("._config.json", "ignore.system"),
    ("trainer_state.json", "ignore.log"),
    ("eval_results.txt", "ignore.log"),
    ("generation_config.json", "ignore.log"),
    ("events.out.tfevents.1700000000.host.1.0", "ignore.log"),
    ("train.log", "ignore.log"),
    ("spiece.model", "ignore.sentencepiece"),
    ("tokenizer.model", "ignore.sentencepiece"),
    ("notes.xyz", "ignore.unknown"),
    ("other.json", "ignore.unknown"),
    ("Config.JSON.bak", "ignore.unknown"),
    ("pytorch_model.bin.index.json", "ignore.unknown"),
    ("naïve 説明.dat", "ignore.unknown"),
]


@pytest.mark.parametrize(("name", "rule"), IGNORED, ids=[name for name, _ in IGNORED])
@pytest.mark.parametrize("pack", [False, True])
def test_what_a_model_works_without_is_left_out_and_listed(
    house: House, model: Files, name: str, rule: str, pack: bool
) -> None:
    files = model | {name: b"anything"}
    report = house.send_zip(zipped(files)) if pack else house.send(files)
    assert report.accepted
    assert [(f.name, f.rule) for f in report.files if f.verdict == "ignored"] == [(name, rule)]
    assert sorted(p.name for p in house.target.iterdir()) == sorted(model)


@pytest.mark.parametrize(
    "name",
    [
        "__MACOSX/tiny/._config.json",
        "__MACOSX/._modeling.py",
        "tiny/runs/events.out.tfevents.1",
        "tiny/docs/README.md",
        "LICENSE",
    ],
)
def test_what_is_left_out_may_stand_anywhere(house: House, model: Files, name: str) -> None:
    report = house.send_zip(zipped({f"tiny/{n}": data for n, data in model.items()} | {name: b""}))
    assert report.accepted
    assert verdicts(report)[name] == "ignored"


@pytest.mark.parametrize(
    "name", ["notes.xyz", "README.md", "__MACOSX/._config.json", "checkpoint-12/vocab.txt", ".git/objects/pack/1.pack"]
)
def test_what_nobody_reads_counts_in_the_limits_of_a_zip(house: House, model: Files, name: str) -> None:
    rest = sum(map(len, model.values()))
    assert rest < MEGABYTE // 2
    files = model | {name: random.Random(0).randbytes(MEGABYTE - rest)}
    assert house.send_zip(zipped(files), UploadConfig(megabytes=1)).accepted
    shutil.rmtree(house.target)
    found = refusal(house.send_zip(zipped(files | {name: files[name] + b"x"}), UploadConfig(megabytes=1)))
    assert (found.name, found.rule) == (name, "size.total")
    assert found.reason.endswith("Leave it out: nothing of it is used.")


@pytest.mark.parametrize("name", ["notes.xyz", "train.log", "deeper/model.safetensors"])
def test_what_nobody_reads_may_not_grow_beyond_the_ratio(house: House, model: Files, name: str) -> None:
    # 1.5 megabytes that deflate makes 1 of 50 or so of
    files = zipped(model | {name: random.Random(0).randbytes(16 << 10) * 96})
    assert house.send_zip(files).accepted
    shutil.rmtree(house.target)
    found = refusal(house.send_zip(files, UploadConfig(ratio=3)))
    assert (found.name, found.rule) == (name, "zip.ratio")
    assert found.reason.endswith("Leave it out: nothing of it is used.")


def test_what_nobody_reads_may_not_claim_another_size_than_it_has(house: House, model: Files) -> None:
    data = zipped(model | {"notes.xyz": b"a note of some length"})
    assert house.send_zip(data).accepted
    shutil.rmtree(house.target)
    for claim in (1, 5000):
        found = refusal(house.send_zip(patched(data, "notes.xyz", put(22, "<I", claim), put(24, "<I", claim))))
        assert (found.name, found.rule) == ("notes.xyz", "zip.damaged")


def test_a_claim_beyond_the_limit_is_refused_before_it_is_read(house: House, model: Files) -> None:
    claim = 2 * MEGABYTE
    data = patched(zipped({"notes.xyz": b"a note"} | model), "notes.xyz", put(22, "<I", claim), put(24, "<I", claim))
    found = refusal(house.send_zip(data, UploadConfig(megabytes=1)))
    assert (found.name, found.rule) == ("notes.xyz", "size.total")


@pytest.mark.parametrize("pack", [False, True])
def test_separate_files_that_nobody_reads_count_too(house: House, model: Files, pack: bool) -> None:
    files = model | {"notes.xyz": random.Random(0).randbytes(MEGABYTE)}
    report = (
        house.send_zip(zipped(files), UploadConfig(megabytes=1))
        if pack
        else house.send(files, UploadConfig(megabytes=1))
    )
    assert refusal(report).name == "notes.xyz"


# ---------------------------------------------------------------- formats


REFUSED = [
    *(
        (name, "format.pickle")
        for name in ("pytorch_model.bin", "m.pt", "m.pth", "m.pkl", "m.pickle", "m.ckpt", "m.joblib", "m.npy", "m.npz")
    ),
    *(
        (name, "format.pickle")
        for name in ("PYTORCH_MODEL.BIN", "pytorch_model.bin.", "README.pkl", "model.safetensors.bin", "vocab.txt.pt")
    ),
    *(
        (name, "format.other")
        for name in ("tf_model.h5", "flax_model.msgpack", "model.gguf", "model.onnx", "model.tflite")
    ),
    *(
        (name, "format.code")
        for name in ("modeling_tiny.py", "run.sh", "lib.so", "a.dll", "a.exe", "LICENSE.py", "a.ipynb", "A.PY", "a.pyc")
    ),
]


@pytest.mark.parametrize(("name", "rule"), REFUSED, ids=[name for name, _ in REFUSED])
@pytest.mark.parametrize("pack", [False, True])
def test_what_could_run_code_or_is_no_safetensors_is_refused_even_beside_them(
    house: House, model: Files, name: str, rule: str, pack: bool
) -> None:
    files = model | {name: b"anything"}
    found = refusal(house.send_zip(zipped(files)) if pack else house.send(files))
    assert (found.name, found.rule) == (name, rule)
    assert "Remove it" in found.reason


def test_a_pickle_in_the_place_of_the_weights_is_refused_with_what_to_do(house: House, model: Files) -> None:
    files = {name.replace("model.safetensors", "pytorch_model.bin"): data for name, data in model.items()}
    assert refusal(house.send(files)).reason == (
        "pytorch_model.bin is a pickle and could run code. Convert it where you trust it, in a container without "
        "network and secrets, for loading it can run code, with PyTorch 2.10 or later: "
        "AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(new, safe_serialization=True), and "
        "give model.safetensors."
    )


def test_a_pickle_beside_the_weights_is_to_be_removed(house: House, model: Files) -> None:
    assert refusal(house.send(model | {"pytorch_model.bin": b""})).reason == (
        "pytorch_model.bin is a pickle and could run code. Remove it: model.safetensors is all that is read of weights."
    )


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "rng_state_0.pth"])
def test_what_is_left_over_from_training_is_to_be_removed(house: House, name: str) -> None:
    assert (
        refusal(house.send({name: b""})).reason
        == f"{name} is a pickle and could run code. Remove it: it is left over from training."
    )


def test_several_refused_files_are_counted(house: House, model: Files) -> None:
    report = house.send(model | {"a.bin": b"", "b.bin": b"", "c.py": b""})
    assert report.problem.startswith("Refused: a.bin is a pickle")
    assert report.problem.endswith(" 2 more of the files are refused.")
    assert verdicts(report) == dict.fromkeys(model, "accepted") | dict.fromkeys(("a.bin", "b.bin", "c.py"), "refused")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08",
        pickle.dumps({"weight": [1.0]}),
        zipped({"archive/data.pkl": pickle.dumps({"weight": [1.0]})}),
        b"<!doctype html><title>Not found</title>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 100_000_001) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 2) + b"[]" + bytes(100),
    ],
    ids=[
        "empty",
        "short",
        "pickle",
        "torch",
        "page",
        "pointer",
        "longer header",
        "header over the limit of the format",
        "cut header",
        "no object",
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_another_format_under_the_name_of_safetensors_is_refused(
    house: House, model: Files, data: bytes, pack: bool
) -> None:
    files = model | {"model.safetensors": data}
    found = refusal(house.send_zip(zipped(files)) if pack else house.send(files))
    assert (found.name, found.rule) == ("model.safetensors", "format.disguised")


@pytest.mark.parametrize(
    "name", ["model (1).safetensors", ".safetensors", "mödel.safetensors", "-rf.safetensors", "<b>.safetensors"]
)
def test_weights_by_an_odd_name_are_refused(house: House, model: Files, name: str) -> None:
    found = refusal(house.send(model | {name: model["model.safetensors"]}))
    assert (found.name, found.rule) == (name, "file.name")
    assert "Rename it" in found.reason


# ---------------------------------------------------------------- what vetting finds


def test_an_upload_without_its_config_is_refused_without_a_path_of_ours(house: House, model: Files) -> None:
    report = house.send({name: data for name, data in model.items() if name != "config.json"})
    assert report.problem.startswith("The upload holds no config.json (found: model.safetensors, ")
    assert str(house.root) not in report.problem


SPOILT: dict[str, Callable[[Files], Files]] = {
    "a width that is not that of the weights": lambda m: (
        m | {"config.json": json.dumps(json.loads(m["config.json"]) | {"intermediate_size": 128}).encode()}
    ),
    "an architecture that is not read": lambda m: (
        m | {"config.json": json.dumps(json.loads(m["config.json"]) | {"model_type": "gptj"}).encode()}
    ),
    "a token beyond the embeddings": lambda m: m | {"added_tokens.json": b'{"example": 1000}'},
    "another tensor": lambda m: m | {"model.safetensors": weights(8)},
    "no tokenizer": lambda m: {n: data for n, data in m.items() if n != "tokenizer.json"},
    "no config": lambda m: {n: data for n, data in m.items() if n != "config.json"},
}


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("name", ["model", "config.json", "a"])
def test_no_word_of_a_refusal_is_taken_for_the_folder_of_the_upload(
    house: House, model: Files, spoil: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be called what any word of a sentence is: nothing is replaced in it."""
    elsewhere = receive([(n, house.place(data)) for n, data in SPOILT[spoil](model).items()], house.root / "elsewhere")
    monkeypatch.chdir(house.root / "models")
    report = receive([(n, house.place(data)) for n, data in SPOILT[spoil](model).items()], Path(name))
    assert not report.accepted
    assert report.problem == elsewhere.problem
    assert "the The" not in report.problem
    assert report.problem.count("The upload") == report.problem.startswith("The upload holds")


def test_an_upload_without_weights_is_refused(house: House, model: Files) -> None:
    report = house.send({name: data for name, data in model.items() if name != "model.safetensors"})
    assert report.problem.startswith("The upload holds no weights")


def test_an_upload_of_nothing_that_is_read_is_refused(house: House) -> None:
    assert house.send({"notes.xyz": b""}).problem.startswith("The upload holds no config.json (found: notes.xyz)")


@pytest.mark.parametrize("pack", [False, True])
def test_a_config_that_asks_for_code_is_refused(house: House, model: Files, pack: bool) -> None:
    config = json.loads(model["config.json"]) | {"auto_map": {"example": "example"}}
    files = model | {"config.json": json.dumps(config).encode()}
    report = house.send_zip(zipped(files)) if pack else house.send(files)
    assert report.problem.startswith("Refused: config.json sets 'auto_map'")


@pytest.mark.parametrize("depth", [60, 64, 65, 66, 100])
def test_a_config_nested_deeply_ends_in_a_report(house: House, model: Files, depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    report = house.send(model | {"config.json": deep})
    assert report.accepted or "config.json" in report.problem


def test_a_long_text_of_an_index_is_cut_in_the_problem(house: House, model: Files) -> None:
    index = json.dumps({"weight_map": {"w": "\u202e" * 5000}}).encode()
    report = house.send(model | {"model.safetensors.index.json": index})
    assert report.problem.startswith("Refused: model.safetensors.index.json names")
    assert len(report.problem) < 4000
    assert "\u202e" not in report.problem


# ---------------------------------------------------------------- names


NAMES = [
    ("/config2.xyz", "path"),
    ("../notes.xyz", "path"),
    ("tiny/../../notes.xyz", "path"),
    ("tiny/..", "path"),
    ("./notes.xyz", "path"),
    ("tiny//notes.xyz", "path"),
    ("C:/notes.xyz", "path"),
    ("c:notes.xyz", "path"),
    ("..\\notes.xyz", "path"),
    ("tiny\\notes.xyz", "path"),
    ("no\ttes.xyz", "name"),
    ("no\ntes.xyz", "name"),
    ("no\x1b[31mtes.xyz", "name"),
    ("no\x7ftes.xyz", "name"),
    ("zyx.\u202esrosnetefas", "name"),
    ("no\u200btes.xyz", "name"),
    ("n" * 252 + ".xyz", "name"),
    ("é" * 127 + ".xyz", "name"),
    ("/".join(["deeper"] * 171) + ".xyz", "name"),
]


@pytest.mark.parametrize(("name", "rule"), NAMES, ids=[ascii(name)[:30] for name, _ in NAMES])
@pytest.mark.parametrize("pack", [False, True])
def test_a_name_that_is_not_plain_is_refused_even_of_a_file_that_is_left_out(
    house: House, model: Files, name: str, rule: str, pack: bool
) -> None:
    assert house.send(model | {"notes.xyz": b""}).accepted
    shutil.rmtree(house.target)
    files = model | {name: b"anything"}
    found = refusal(house.send_zip(zipped(files)) if pack else house.send(files))
    assert (found.name, found.rule) == (name, f"{'zip' if pack else 'file'}.{rule}")
    assert all(c.isprintable() for c in found.reason)


@pytest.mark.parametrize("name", ["n" * 251 + ".xyz", "/".join(["deeper"] * 170), "n" * 255 + "/" + "n" * 255])
def test_a_name_of_255_bytes_in_folders_of_1024_is_not_too_long(house: House, model: Files, name: str) -> None:
    assert house.send(model | {name: b""}).accepted


def test_a_name_that_hides_its_end_behind_a_nul_is_refused(house: House, model: Files) -> None:
    data = zipped(model | {"tokens.jsonQ.py": b""}).replace(b"tokens.jsonQ.py", b"tokens.json\0.py")
    assert refusal(house.send_zip(data)).rule == "zip.name"


def test_a_name_without_letters_is_refused(house: House, model: Files) -> None:
    assert refusal(house.send([*model.items(), ("", b"")])).rule == "file.path"


def test_a_name_of_broken_unicode_is_refused(house: House, model: Files) -> None:
    found = refusal(house.send(model | {"no\ud800tes.xyz": b""}))
    assert found.rule == "file.name"
    found.reason.encode()  # can be sent


@pytest.mark.parametrize("pack", [False, True])
def test_a_file_that_comes_twice_is_refused(house: House, model: Files, pack: bool) -> None:
    if pack:
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = zipped([*model.items(), ("config.json", model["config.json"])])
        report = house.send_zip(data)
    else:
        report = house.send([*model.items(), ("config.json", model["config.json"])])
    assert refusal(report).rule == f"{'zip' if pack else 'file'}.duplicate"


@pytest.mark.parametrize("name", ["Config.json", "CONFIG.JSON", "Model.safetensors"])
@pytest.mark.parametrize("pack", [False, True])
def test_names_that_differ_in_case_alone_are_refused(house: House, model: Files, name: str, pack: bool) -> None:
    files = model | {name: b"{}"}
    found = refusal(house.send_zip(zipped(files)) if pack else house.send(files))
    assert (found.name, found.rule) == (name, f"{'zip' if pack else 'file'}.case")


def test_names_that_differ_in_the_spelling_of_an_accent_alone_are_refused(house: House, model: Files) -> None:
    assert refusal(house.send(model | {"\u00e9.xyz": b"", "e\u0301.xyz": b""})).rule == "file.case"


def test_a_folder_by_the_name_of_a_file_is_refused(house: House, model: Files) -> None:
    assert refusal(house.send_zip(zipped([*model.items(), ("config.json/", b"")]))).rule == "zip.case"


@pytest.mark.parametrize("name", ["deeper/vocab.txt", "other/vocab.txt", "vocab.txt", "model.safetensors"])
def test_a_file_that_is_read_and_stands_beside_the_models_folder_is_refused(
    house: House, model: Files, name: str
) -> None:
    found = refusal(house.send_zip(zipped({f"tiny/{n}": data for n, data in model.items()} | {name: b""})))
    assert (found.name, found.rule) == (name, "zip.folder")
    assert "the one in tiny. Give the files of one model" in found.reason


@pytest.mark.parametrize("folder", ["", "tiny/", "out/tiny/"])
@pytest.mark.parametrize(
    "name", ["checkpoint-12/config.json", "1_Pooling/config.json", "tokenizer/vocab.txt", "old/new/model.safetensors"]
)
def test_what_stands_within_the_models_folder_is_not_read(house: House, model: Files, folder: str, name: str) -> None:
    files = {folder + n: data for n, data in (model | {name: b"no"}).items()}
    for send in (lambda: house.send_zip(zipped(files)), lambda: house.send(files)):
        report = send()
        assert [(f.name, f.rule) for f in report.files if f.verdict != "accepted"] == [(folder + name, "ignore.folder")]
        assert report.accepted
        shutil.rmtree(house.target)


def test_two_models_side_by_side_are_refused(house: House, model: Files) -> None:
    report = house.send_zip(
        zipped({f"{folder}/{n}": data for folder in ("checkpoint-1", "checkpoint-2") for n, data in model.items()})
    )
    assert {f.rule for f in report.files} == {"zip.folder"}
    assert "than the one in checkpoint-1 or checkpoint-2. Give the files of one model" in report.problem


def test_of_two_folders_the_one_with_weights_holds_the_model(house: House, model: Files) -> None:
    """A library of sentence embeddings writes a folder for each module, each with a config.json."""
    report = house.send_zip(
        zipped({f"0_Transformer/{n}": data for n, data in model.items()} | {"1_Dense/config.json": b"{}"})
    )
    assert refusal(report).name == "1_Dense/config.json"


# ---------------------------------------------------------------- zips


def test_a_zip_in_a_zip_is_refused(house: House, model: Files) -> None:
    found = refusal(house.send_zip(zipped(model | {"more.zip": zipped(model)})))
    assert (found.name, found.rule) == ("more.zip", "zip.nested")


@pytest.mark.parametrize("name", ["model.zip", "model.tar.gz", "model.7z"])
def test_an_archive_beside_files_is_refused(house: House, model: Files, name: str) -> None:
    found = refusal(house.send(model | {name: zipped(model)}))
    assert (found.name, found.rule) == (name, "file.nested")


@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        (stat.S_IFREG | 0o644, None),
        (0, None),
        (stat.S_IFLNK | 0o777, "zip.link"),
        (stat.S_IFCHR | 0o644, "zip.special"),
        (stat.S_IFBLK | 0o644, "zip.special"),
        (stat.S_IFIFO | 0o644, "zip.special"),
        (stat.S_IFSOCK | 0o644, "zip.special"),
        (stat.S_IFDIR | 0o755, "zip.special"),
    ],
)
@pytest.mark.parametrize("name", ["vocab.txt", "README.md"])
def test_an_entry_that_is_no_file_is_refused(
    house: House, model: Files, mode: int, rule: str | None, name: str
) -> None:
    report = house.send_zip(zipped([*model.items(), (entry(name, mode), b"elsewhere.txt")]))
    assert (None if report.accepted else refusal(report).rule) == rule


def test_a_link_under_the_name_of_a_folder_is_refused(house: House, model: Files) -> None:
    assert (
        refusal(house.send_zip(zipped([*model.items(), (entry("tiny/", stat.S_IFLNK | 0o777), b"elsewhere")]))).rule
        == "zip.link"
    )


def patched(
    data: bytes,
    name: str,
    local: Callable[[bytearray], None] | None = None,
    central: Callable[[bytearray], None] | None = None,
) -> bytes:
    """The zip with the headers of one entry changed: the one before its bytes, and the one in the list of entries."""
    out = bytearray(data)
    for mark, size, length_at, change in ((b"PK\3\4", 30, 26, local), (b"PK\1\2", 46, 28, central)):
        at = next(
            m.start()
            for m in re.finditer(re.escape(mark), data)
            if data[m.start() :][size:][: len(name)] == name.encode()
        )
        header = out[at : at + size]
        assert struct.unpack_from("<H", header, length_at) == (len(name),)
        if change:
            change(header)
        out[at : at + size] = header
    return bytes(out)


def put(at: int, form: str, value: int) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        struct.pack_into(form, header, at, value)

    return change


def test_patching_a_zip_with_what_is_there_changes_nothing(house: House, model: Files) -> None:
    data = zipped(model)
    assert patched(data, "config.json", put(6, "<H", 0), put(8, "<H", 0)) == data
    assert house.send_zip(data).accepted


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
@pytest.mark.parametrize("name", ["config.json", "notes.xyz"])
def test_an_encrypted_entry_is_refused(house: House, model: Files, flag: int, name: str) -> None:
    data = patched(zipped(model | {"notes.xyz": b"x"}), name, put(6, "<H", flag), put(8, "<H", flag))
    found = refusal(house.send_zip(data))
    assert (found.name, found.rule) == (name, "zip.encrypted")
    assert "without a password" in found.reason


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_whose_blocks_unpack_at_once_is_refused(house: House, model: Files, method: int) -> None:
    report = house.send_zip(zipped(model, method))
    assert {f.rule for f in report.files if f.verdict == "refused"} == {"zip.method"}


@pytest.mark.parametrize("method", [1, 6, 9, 93, 95, 99, 65535])
def test_an_unknown_method_is_refused(house: House, model: Files, method: int) -> None:
    data = patched(zipped(model), "config.json", put(8, "<H", method), put(10, "<H", method))
    assert refusal(house.send_zip(data)).rule == "zip.method"


def test_the_entries_of_a_zip_are_counted_whatever_they_are(house: House, model: Files) -> None:
    spare = 10 - len(model)
    assert house.send_zip(zipped(model | {f"{i}.xyz": b"" for i in range(spare)}), UploadConfig(entries=10)).accepted
    shutil.rmtree(house.target)
    report = house.send_zip(zipped(model | {f"{i}.xyz": b"" for i in range(spare + 1)}), UploadConfig(entries=10))
    found = refusal(report)
    assert (found.name, found.rule) == ("model.zip", "zip.entries")


def test_a_list_of_very_many_entries_is_not_read(house: House, model: Files) -> None:
    out = bytearray(zipped(model))
    end = out.index(b"PK\5\6")
    start = struct.unpack_from("<I", out, end + 16)[0]
    one = bytes(out[start : start + 46]) + out[start + 46 : start + 46 + struct.unpack_from("<H", out, start + 28)[0]]
    many = one * 3000  # more than the 128 kilobytes that are read of a list where ten entries are allowed
    struct.pack_into("<I", out, end + 12, len(many))
    report = house.send_zip(bytes(out[:start]) + many + bytes(out[end:]), UploadConfig(entries=10))
    assert refusal(report).rule == "zip.entries"


def test_separate_files_are_counted(house: House, model: Files) -> None:
    assert house.send(model, UploadConfig(entries=len(model))).accepted
    shutil.rmtree(house.target)
    report = house.send(model, UploadConfig(entries=len(model) - 1))
    assert report.problem.startswith(
        f"{len(model)} files came, and an upload may have {len(model) - 1}. Expected config.json"
    )


def test_an_entry_that_grows_beyond_the_ratio_is_refused(house: House, model: Files) -> None:
    files = model | {"spare.safetensors": weights(3 * MEGABYTE)}  # zeros: deflate makes 1 of 1000; harmless by its size
    assert house.send_zip(zipped(files, zipfile.ZIP_STORED)).rule == "weights.stray"  # it was unpacked
    assert house.send_zip(zipped(files), UploadConfig(ratio=2000)).rule == "weights.stray"
    found = refusal(house.send_zip(zipped(files)))
    assert (found.name, found.rule) == ("spare.safetensors", "zip.ratio")


@pytest.mark.parametrize("claim", [1, 1000, 2 * MEGABYTE, 3 * MEGABYTE, 0xFFFFFFF0])
def test_a_header_cannot_talk_a_bomb_small(house: House, model: Files, claim: int) -> None:
    data = zipped(model | {"spare.safetensors": weights(4 * MEGABYTE)})
    lie = patched(data, "spare.safetensors", put(22, "<I", claim), put(24, "<I", claim))
    assert refusal(house.send_zip(lie)).rule in ("zip.ratio", "zip.damaged", "format.disguised", "size.total")


@pytest.mark.parametrize("claim", [10 * MEGABYTE, 0xFFFFFFF0])
def test_a_header_cannot_talk_the_packed_bytes_many(house: House, model: Files, claim: int) -> None:
    bomb = {"spare.safetensors": weights(4 * MEGABYTE)}
    for files, rule in ((bomb | model, "zip.overlap"), (model | bomb, "zip.damaged")):
        # Reaches into the next entry, or beyond the end
        lie = patched(zipped(files), "spare.safetensors", put(18, "<I", claim), put(20, "<I", claim))
        assert refusal(house.send_zip(lie)).rule == rule


def test_a_bomb_is_given_up_soon(house: House, model: Files) -> None:
    # 6 MB of zeros. A process that may write 2 MB a file and no more would be stopped by the system if it went on.
    path = house.place(zipped(model | {"spare.safetensors": weights(6 * MEGABYTE)}))
    report = limited(house, [("model.zip", path)], 2 * MEGABYTE)
    assert "spare.safetensors grows more than 100 times" in report


@pytest.mark.parametrize("pack", [False, True])
def test_the_bytes_of_all_files_together_are_limited(house: House, model: Files, pack: bool) -> None:
    rest = sum(map(len, model.values()))
    empty = len(weights(0)) + 10  # a header with longer numbers
    small = model | {"spare.safetensors": weights(MEGABYTE - rest - empty)}
    large = model | {"spare.safetensors": weights(MEGABYTE - rest)}
    limit = UploadConfig(megabytes=1)
    # All of it was read
    assert (house.send_zip(zipped(small), limit) if pack else house.send(small, limit)).rule == "weights.stray"
    report = house.send_zip(zipped(large), limit) if pack else house.send(large, limit)
    assert refusal(report).rule == "size.total"


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "merges.txt", "vocab.json"])
@pytest.mark.parametrize("pack", [False, True])
def test_files_of_text_are_limited_one_by_one(house: House, model: Files, name: str, pack: bool) -> None:
    limit = UploadConfig(json_megabytes=1)
    text = random.Random(0).randbytes(MEGABYTE)
    for extra, rule in ((b"", "json.depth" if name == "tokenizer.json" else ""), (b"x", "size.json")):
        files = model | {name: text + extra}
        report = house.send_zip(zipped(files), limit) if pack else house.send(files, limit)
        assert report.rule == rule
        shutil.rmtree(house.target, ignore_errors=True)


def test_what_was_not_read_is_said(house: House, model: Files) -> None:
    report = house.send(
        [
            ("config.json", model["config.json"]),
            ("model.safetensors", b"no"),
            ("tokenizer.json", model["tokenizer.json"]),
            ("a.md", b""),
        ]
    )
    assert [(f.verdict, f.rule) for f in report.files] == [
        ("accepted", "accept.settings"),
        ("refused", "format.disguised"),
        ("ignored", "ignore.unread"),
        ("ignored", "ignore.text"),
    ]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_wrong_checksum_is_found(house: House, model: Files, name: str, method: int) -> None:
    data = zipped(model, method)
    assert house.send_zip(data).accepted
    shutil.rmtree(house.target)
    found = refusal(house.send_zip(patched(data, name, put(14, "<I", 7), put(16, "<I", 7))))
    assert (found.name, found.rule) == (name, "zip.damaged")


def test_a_changed_byte_is_found(house: House, model: Files) -> None:
    data = bytearray(zipped(model, zipfile.ZIP_STORED))
    data[data.index(model["model.safetensors"]) + len(model["model.safetensors"]) // 2] ^= 1
    assert refusal(house.send_zip(bytes(data))).rule == "zip.damaged"


def test_an_entry_shorter_than_it_claims_is_found(house: House, model: Files) -> None:
    size = len(model["tokenizer.json"]) + 1
    assert (
        refusal(house.send_zip(patched(zipped(model), "tokenizer.json", put(22, "<I", size), put(24, "<I", size)))).rule
        == "zip.damaged"
    )


def test_an_entry_that_goes_by_another_name_in_the_list_is_found(house: House, model: Files) -> None:
    data = zipped(model).replace(b"tokenizer.json", b"tekonizer.json", 1)  # the first is the entry's own
    assert (refusal(house.send_zip(data)).name, refusal(house.send_zip(data)).rule) == ("tokenizer.json", "zip.damaged")


def test_entries_that_share_bytes_are_refused(house: House, model: Files) -> None:
    # One stored entry reaches over the next: its bytes are the next entry's header and bytes.
    inner = zipped({"vocab.txt": b"a\nb\n"}, zipfile.ZIP_STORED)
    data = bytearray(zipped([*model.items(), ("merges.txt", b""), ("vocab.txt", b"a\nb\n")], zipfile.ZIP_STORED))
    span = 30 + len("vocab.txt") + 4
    assert inner[:span] == data[data.index(b"vocab.txt") - 30 :][:span]
    crc = zipfile.crc32(inner[:span])

    def reach(offset: int) -> Callable[[bytearray], None]:
        return lambda header: struct.pack_into("<III", header, offset, crc, span, span)

    found = refusal(house.send_zip(patched(bytes(data), "merges.txt", reach(14), reach(16))))
    assert (found.name, found.rule) == ("merges.txt", "zip.overlap")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"hello",
        b"<!doctype html>",
        b"PK\3\4" + bytes(100),
        b"PK\5\6" + b"\xff" * 18,
        b"\x1f\x8b" + bytes(100),
        bytes(300_000),
    ],
    ids=["empty", "two bytes", "text", "page", "header", "end", "gzip", "zeros"],
)
def test_what_is_no_zip_is_refused_by_its_name(house: House, data: bytes) -> None:
    found = refusal(house.send_zip(data, name="tiny.zip"))
    assert (found.name, found.rule) == ("tiny.zip", "zip.malformed")
    assert (
        found.reason
        == "tiny.zip is no zip, or was damaged or cut off on its way. Zip the model's folder again and upload it."
    )


def test_an_empty_zip_holds_no_model(house: House) -> None:
    assert house.send_zip(zipped({})).problem.startswith("The upload holds no config.json")


def test_bytes_before_and_after_a_zip_do_no_harm(house: House, model: Files) -> None:
    assert house.send_zip(b"#!/bin/sh\n" + zipped(model)).accepted


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_zip_that_is_cut_off_is_refused(house: House, model: Files, share: float) -> None:
    data = zipped(model)
    assert refusal(house.send_zip(data[: int(len(data) * share)])).rule == "zip.malformed"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_damage_to_a_zip_ends_in_anything_but_a_report(house: House, model: Files, method: int) -> None:
    rng = random.Random(method)
    small = {name: data for name, data in model.items() if name != "tokenizer.json"} | {
        "model.safetensors": weights(100)
    }
    valid = zipped({f"tiny/{name}": data for name, data in small.items()}, method)
    path = house.place(valid)
    headers = [
        i
        for i in range(len(valid))
        if any(mark in valid[max(0, i - 60) : i + 4] for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6"))
    ]
    refused = 0
    for _ in range(800):
        data = bytearray(valid)
        for _ in range(rng.randint(1, 4)):
            data[rng.choice(headers) if rng.random() < 0.8 else rng.randrange(len(data))] = rng.choice(
                (0, 1, 255, rng.randrange(256))
            )
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :][: rng.randrange(1, 50)]
        path.write_bytes(data)
        report = house.receive([("model.zip", path)])
        refused += not report.accepted
        shutil.rmtree(house.target, ignore_errors=True)
    assert refused > 370


# ---------------------------------------------------------------- files and disks


def test_nothing_is_no_upload(house: House) -> None:
    assert (
        house.send({}).problem
        == "No file came. Expected config.json, model.safetensors and the tokenizer's files, or one zip of them."
    )


@pytest.mark.parametrize("name", ["config.json", "model.zip"])
@pytest.mark.parametrize("kind", ["gone", "folder", "device"])
def test_a_file_that_did_not_arrive_is_said(house: House, name: str, kind: str) -> None:
    path = {"gone": house.root / "nowhere", "folder": house.root, "device": Path("/dev/zero")}[kind]
    found = refusal(house.receive([(name, path)]))
    assert (found.name, found.rule) == (name, "file.missing")
    assert found.reason == f"{name} did not arrive. Upload it again."


def test_a_directory_that_exists_is_left_alone(house: House, model: Files) -> None:
    house.target.mkdir()
    (house.target / "config.json").write_text("mine")
    with pytest.raises(FileExistsError):
        house.send(model)
    assert (house.target / "config.json").read_text() == "mine"


def limited(house: House, sources: Sequence[tuple[str, Path]], size: int) -> str:
    """The problem of an upload in a process that may write files of `size` bytes at most: its writes fail beyond, as on
    a full disk."""
    fork = multiprocessing.get_context("fork")  # which has PyTorch loaded
    answer, said = fork.Pipe(duplex=False)

    def upload() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        said.send(receive(sources, house.target).problem)

    before = house.everything()
    process = fork.Process(target=upload)
    process.start()
    process.join(120)
    assert answer.poll(), process.exitcode
    problem = str(answer.recv())
    if problem:
        assert house.everything() == before
    return problem


@pytest.mark.parametrize("pack", [False, True])
def test_a_full_disk_leaves_nothing(house: House, model: Files, pack: bool) -> None:
    files = (
        [("model.zip", house.place(zipped(model)))]
        if pack
        else [(name, house.place(data)) for name, data in model.items()]
    )
    assert limited(house, files, MEGABYTE) == ""
    shutil.rmtree(house.target)
    problem = limited(house, files, len(model["model.safetensors"]) // 2)
    assert (
        problem
        == "The upload could not be stored here (File too large), and nothing of it was kept. Try a smaller model, or "
        "later."
    )


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("config.json", "config.json"),
        ("naïve 説明.dat", "naïve 説明.dat"),
        ("a\nb", "a\\u000ab"),
        ("a\u202eb", "a\\u202eb"),
        ("a\ud800b", "a\\ud800b"),
        ("<b>", "<b>"),
        ("x" * 120, "x" * 120),
        ("x" * 200 + ".safetensors", "x" * 79 + "…" + "x" * 28 + ".safetensors"),
    ],
)
def test_a_name_becomes_printable(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_no_reason_promises_safety(house: House, model: Files) -> None:
    said: list[Any] = []
    for name, _ in (*IGNORED, *REFUSED):
        report = house.send(model | {name: b""})
        said += [report.problem, *(f.reason for f in report.files)]
        shutil.rmtree(house.target, ignore_errors=True)
    words = " ".join(said).replace("safetensors", "").replace("safe_serialization", "")
    assert "safe" not in words.lower()
