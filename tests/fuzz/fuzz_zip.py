"""A zip of a model: every one ends in a report, and nothing but what is accepted is left, in its folder alone."""

from __future__ import annotations

import io
import random
import shutil
import stat
import zipfile

from fuzzing import change_bytes, fuzz, place, smallest_model, watched

with watched(__name__):
    from mbtsad_core.config import UploadConfig
    from mbtsad_core.vetting.rules import RULES
    from mbtsad_core.vetting.uploads import receive

HOME = place()
LIMITS = UploadConfig(megabytes=2, json_megabytes=1, entries=16)


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, folder: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(folder + name), data, method)
    return out.getvalue()


def seeds() -> list[bytes]:
    files = smallest_model()
    small = {"config.json": files["config.json"], "vocab.txt": b"a\n"}
    link = zipfile.ZipInfo("vocab.txt")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as archive:
        archive.writestr(link, "elsewhere.txt")
    return [
        packed(files),
        packed(files, zipfile.ZIP_STORED, "model/"),
        packed(small),
        packed(small | {"../x.txt": b"x"}, zipfile.ZIP_STORED),
        packed(small | {"pytorch_model.bin": b"\x80\x04."}),
        packed({"config.json": bytes(1 << 16)}),
        linked.getvalue(),
        packed({}),
    ]


def change(data: bytes, rng: random.Random) -> bytes:
    """An entry renamed, changed, repeated or left out; or a field of a header changed, which its writer would never
    do."""
    if rng.random() < 0.5:
        marks = [at for at in range(len(data) - 4) if data[at : at + 2] == b"PK"]
        if not marks:
            return change_bytes(data, rng)
        at = rng.choice(marks) + rng.randrange(46)
        return (
            data[:at] + rng.randbytes(rng.choice((1, 2, 4))) + data[at + 1 :]
            if rng.random() < 0.2
            else data[:at] + rng.randbytes(1) + data[at + 1 :]
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {
                name: archive.read(name)
                for name in archive.namelist()[:16]
                if archive.getinfo(name).file_size < 1 << 17
            }
    except Exception:  # a zip that is broken already
        return change_bytes(data, rng)
    if files:
        name = rng.choice(list(files))
        contents = files.pop(name)
        new = rng.choice(
            (name, name.upper(), "../" + name, "a/" + name, name + "/", "\u202e" + name, name + ".bin", "")
        )
        files |= {new: change_bytes(contents, rng)} if rng.random() < 0.7 else {}
    return packed(files, rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2)))


def once(data: bytes) -> None:
    sent, model = HOME / "sent", HOME / "model"
    sent.write_bytes(data)
    report = receive([("model.zip", sent)], model, LIMITS)
    assert report.accepted or report.rule in RULES
    assert {p.name for p in HOME.iterdir()} == ({"sent", "model"} if report.accepted else {"sent"})
    if report.accepted:
        accepted = {v.name.rpartition("/")[2] for v in report.files if v.verdict == "accepted"}
        assert {p.name for p in model.iterdir()} == accepted
        assert sum(p.stat().st_size for p in model.iterdir()) <= LIMITS.megabytes << 20
        shutil.rmtree(model)


if __name__ == "__main__":
    fuzz(__file__, once, seeds(), change)
