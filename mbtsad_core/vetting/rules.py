"""The rules by which a model is judged: what each asks, and why. Their names are stable: reports, JSON and SARIF carry
them.

docs/vetting.md is printed from here (`python -m mbtsad_core.vetting.rules`), and a test holds the two together.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """What is refused, or what becomes of a file; why; and the advisory or source that taught it."""

    what: str
    why: str
    advisory: str = ""


RULES: dict[str, Rule] = {
    # Formats
    "format.pickle": Rule(
        "a pickle under any of its names: .bin, .pt, .pth, .ckpt, .pkl, .joblib, .npy, ...",
        "loading a pickle calls what it names; no scanner and no restricted loader has held",
        "CVE-2025-32434, CVE-2026-24747, CVE-2024-3568, CVE-2024-11392, CVE-2025-1716, CVE-2025-10155, arXiv "
        "2508.19774",
    ),
    "format.other": Rule(
        "weights in another format: .gguf, .onnx, .h5, .msgpack, ...", "each has a reader, and flaws, of its own"
    ),
    "format.code": Rule(
        "a file of code or a binary: .py, .so, .sh, .ipynb, ...", "code that comes with a model is never run"
    ),
    "format.disguised": Rule(
        "a file that is something else than its name says: a pointer of Git LFS, a web page, an archive, a pickle; or "
        "weights cut off in their header",
        "readers that sniff the content fall back on unsafe formats",
    ),
    # Names and kinds of files
    "file.missing": Rule("an uploaded file that did not arrive", "nothing can be said of it"),
    "file.entries": Rule("more files than an upload may have", "each costs time and room"),
    "file.name": Rule(
        "a name too long, with characters that cannot be seen, or odd for weights",
        "names are shown, and reach a shell or a terminal",
    ),
    "file.path": Rule(
        "a name with an absolute path, a drive, a backslash, '.' or '..'",
        "writes outside the upload's folder",
        "CVE-2024-47164, CVE-2023-51449",
    ),
    "file.duplicate": Rule("a name that comes twice", "what is judged must be what is read"),
    "file.case": Rule("two names that differ in case alone", "they are one file on some file systems"),
    "file.folder": Rule(
        "files that are read beside the folder of the model, or two models side by side",
        "it is not clear which are meant",
    ),
    "file.nested": Rule(
        "an archive within the upload", "it would be unpacked by someone, some day, without these limits"
    ),
    "file.link": Rule("a link that leads out of the model's folder", "reads files of the machine"),
    "file.special": Rule("a device, pipe or folder in the place of a file", "reading it may never end"),
    "folder.missing": Rule("no folder where one was named", "there is nothing to judge"),
    "folder.entries": Rule("a folder with more files than are looked at", "each costs time"),
    # Zips
    "zip.malformed": Rule("a file that is no zip, or is damaged or cut off", "readers of damaged zips disagree"),
    "zip.damaged": Rule(
        "an entry that cannot be unpacked, or is another than the list says",
        "what is judged must be what is read",
        "CVE-2025-1944, CVE-2025-10156",
    ),
    "zip.entries": Rule("more entries than a zip may have", "each costs time and room"),
    "zip.name": Rule("as file.name", "as file.name"),
    "zip.path": Rule("as file.path", "writes outside the upload's folder (zip slip)", "CVE-2024-1728"),
    "zip.duplicate": Rule("as file.duplicate", "readers differ in which they take"),
    "zip.case": Rule("as file.case", "as file.case"),
    "zip.folder": Rule("as file.folder", "as file.folder"),
    "zip.nested": Rule("as file.nested", "as file.nested"),
    "zip.link": Rule("a symbolic link", "a later entry is written through it"),
    "zip.special": Rule("an entry marked as a device, pipe or socket", "no model has one"),
    "zip.encrypted": Rule("an encrypted entry", "it cannot be judged", "CVE-2025-1945"),
    "zip.method": Rule("another compression than deflate", "bzip2 and LZMA unpack a block at once, however large"),
    "zip.overlap": Rule("entries that share bytes", "few bytes that are unpacked many times"),
    "zip.ratio": Rule(
        "an entry, read or not, that grows more than allowed, counted while it is unpacked",
        "zip bombs: whoever unpacks it has them on the disk",
    ),
    # Sizes
    "size.total": Rule(
        "more bytes than an upload may have, what is not read included, or a model of the Hub", "room on the disk"
    ),
    "size.json": Rule("a JSON or text file larger than allowed", "parsing takes a multiple of its size"),
    "size.memory": Rule(
        "a config that describes a model larger than the memory allowed",
        "memory must not be taken on the word of a config",
    ),
    # JSON
    "json.malformed": Rule("what is no JSON object in UTF-8; NaN and Infinity too", "readers of broken JSON disagree"),
    "json.depth": Rule("JSON nested deeper than 64 levels", "each level takes stack: a crash, not a refusal"),
    "json.size": Rule("JSON of more than four million strings and lists", "memory many times the file's size"),
    "json.duplicate": Rule(
        "a key that comes twice in an object", "the reader that judges takes one, the reader that loads another"
    ),
    # config.json
    "config.missing": Rule("no config.json", "an incomplete upload"),
    "config.code": Rule(
        "auto_map, trust_remote_code, custom_pipelines, quantization_config and their like, at any depth",
        "they ask for code of the model's to be run",
        "CVE-2026-5241",
    ),
    "config.kernel": Rule(
        "an attention or expert implementation that is none of PyTorch's",
        "the library fetches it from the Hub and runs it, whatever trust_remote_code says",
        "CVE-2026-4372",
    ),
    "config.architecture": Rule(
        "an architecture that is none of those that are read", "the keys of others are not known here"
    ),
    "config.value": Rule(
        "a key of a wrong type or out of its range, or sizes that do not fit each other",
        "sizes are bounded before memory is taken",
    ),
    "config.labels": Rule(
        "classes that are not numbered, and names of them that are lists or objects, too long, or hold characters "
        "that cannot be seen",
        "they are shown",
    ),
    # Weights
    "weights.missing": Rule(
        "no weights, a file of them or a weight missing",
        "an incomplete upload; the library would make the missing ones up",
    ),
    "weights.ambiguous": Rule("both model.safetensors and an index", "readers differ in which they take"),
    "weights.stray": Rule("a safetensors file that is no part of the model", "nobody has judged which is meant"),
    "weights.index": Rule(
        "an index that names files of other formats or folders, or does not agree with the files",
        "it can lead to a pickle, or out of the folder",
    ),
    "weights.header": Rule(
        "a header larger than 16 MB, or not of the format", "a header costs time and memory before a tensor is read"
    ),
    "weights.count": Rule(
        "more tensors than allowed (10,000)", "headers of 100,000 tensors cost minutes and gigabytes"
    ),
    "weights.name": Rule("a tensor's name too long or with characters beyond printable ASCII", "names are shown"),
    "weights.dtype": Rule(
        "elements that are no floats of 16, 32 or 64 bits", "quantized weights need code of their own"
    ),
    "weights.shape": Rule(
        "a shape that is no list of whole numbers, is empty, or does not fit the bytes, without overflow",
        "2^63 elements of a byte or none",
    ),
    "weights.offsets": Rule("offsets that are no begin and end", "reads out of the file"),
    "weights.overlap": Rule(
        "tensors that share bytes", "shared storages: few bytes, many tensors; changing one changes another"
    ),
    "weights.hole": Rule(
        "bytes that belong to no tensor",
        "room for another format: a file that is two things",
        "Trail of Bits, safetensors audit, 2023",
    ),
    "weights.truncated": Rule("a file shorter than its header says", "a cut-off upload"),
    "weights.duplicate": Rule("a weight that comes twice", "readers differ in which they take"),
    "weights.unknown": Rule(
        "a tensor within the model that the architecture has not; one beside it, of a loss or another task, is left "
        "out",
        "the config belongs to another model, or the file hides something",
    ),
    "weights.mismatch": Rule("a tensor of another shape than the config gives it", "compared before memory is taken"),
    "weights.finite": Rule(
        "NaN or infinity", "safetensors does not check it; training and measuring fail on it", "safetensors README"
    ),
    "weights.norm": Rule("weights of absurd size", "they overflow in the first product"),
    # Tokenizer
    "tokenizer.missing": Rule("no tokenizer", "an incomplete upload; the library would make up an empty one"),
    "tokenizer.malformed": Rule("a tokenizer that the library cannot build", "it fails, or ends the process, later"),
    "tokenizer.component": Rule(
        "a component or setting that no known family has",
        "Replace makes texts longer, templates repeat them, charsmaps are read out of their bounds",
    ),
    "tokenizer.regex": Rule(
        "a regular expression but those of known families",
        "matched by backtracking: a short one takes for ever",
        "CVE-2025-3933, CVE-2025-5197, tokenizers PR #2060",
    ),
    "tokenizer.vocabulary": Rule(
        "tokens too long, too many, or beyond the model's embeddings", "an index out of range in the first layer"
    ),
    "tokenizer.settings": Rule("a setting of a wrong type or out of its range", "the library believes them"),
    "tokenizer.class": Rule(
        "a tokenizer class, in either file, that is none of the known ones", "the library imports what is named"
    ),
    # Hub
    "hub.id": Rule("what is no owner/name[@revision]", "nothing else may reach an address or a path"),
    # Could not tell
    "vet.unreadable": Rule("a file that cannot be read here", "what is not judged is not clean"),
    "vet.library": Rule("a library that the tokenizer needs is not installed", "what is not judged is not clean"),
    "vet.memory": Rule("not enough memory to judge", "what is not judged is not clean"),
    "vet.cage": Rule(
        "a model that ends, or reaches a limit of, the process that it is first read, loaded and asked in",
        "what is not judged is not clean",
    ),
    "vet.storage": Rule("no room to unpack an upload", "what is not judged is not clean"),
    "vet.nothing": Rule("nothing there that is judged here", "what is not judged is not clean"),
    "vet.fetch": Rule("a model of the Hub that could not be fetched", "what is not judged is not clean"),
    "vet.failure": Rule("vetting itself failed: a defect, please report it", "what is not judged is not clean"),
    # What becomes of the files of a sound model
    "accept.settings": Rule("read", "settings and tokenizer, of which known keys are kept"),
    "accept.weights": Rule("read", "weights"),
    "accept.index": Rule("read", "says which weights stand in which file"),
    "accept.escaped": Rule("read", "class names hold markup, which is shown as text"),
    "ignore.system": Rule("not read", "files of the operating system or of git"),
    "ignore.text": Rule(
        "not read",
        "README, license, pictures; templates (Jinja), which are never rendered",
        "CVE-2024-34359, CVE-2026-5760",
    ),
    "ignore.log": Rule("not read", "traces of the training", "CVE-2026-1839"),
    "ignore.sentencepiece": Rule("not read", "a sentencepiece model; tokenizer.json is read"),
    "ignore.unknown": Rule("not read", "a name that nothing is read by"),
    "ignore.folder": Rule("not read", "what stands in a folder within the model's"),
    "ignore.unread": Rule("not read", "the upload was refused before it"),
    "ignore.format": Rule("not fetched", "a file of the Hub in a format that is not read"),
}


def table() -> str:
    """The rules as a table of Markdown."""
    rows = [f"| `{name}` | {rule.what} | {rule.why} | {rule.advisory or 'none'} |" for name, rule in RULES.items()]
    return "\n".join(["| rule | what | why | advisory |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
