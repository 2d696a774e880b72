"""Tables of labeled texts: a Dataset whose texts and labels are what they should be, or BadData. The first byte says
which format it is."""

from __future__ import annotations

import gzip
import io
import random
import warnings
import zlib

from fuzzing import change_bytes, change_json, fuzz, place, watched

with watched(__name__):
    from mbtsad_core.data import Columns, read_dataset
    from mbtsad_core.errors import BadData

FOLDER = place()
FORMATS = (".tsv", ".csv", ".jsonl", ".parquet", ".tsv.gz", ".csv.gz", ".jsonl.gz", ".json", ".json.gz")
warnings.simplefilter("ignore")  # of pandas, which has one for each odd table


def seeds() -> list[bytes]:
    import pandas as pd

    rows = [("A lovely film", "1"), ('He calls it "art"', "0"), ("\u6620\u753b \U0001f600", "1")]
    tsv = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    csv = 'text,label\n"Slow, then ""sudden""",1\n"One line\nand another",0\n'
    jsonl = '{"text": "A lovely film", "label": 0}\n{"text": "007", "label": 1}\n'
    pairs = "sentence1\tsentence2\tlabel\na\tb\tentailment\nc\td\tneutral\n"
    array = (
        '[{"text": "A lovely film", "label": "1.0", "label_text": "good"}, {"text": "Dull", "label": "-1", '
        '"label_text": null}]'
    )
    columns = '{"text": {"0": "A lovely film", "1": "Dull"}, "label": {"0": 1, "1": 2}}'
    quoted = 'text\tlabel\n"He said ""no"""\t1\n"Two\nlines"\t0\n'
    divided = ["sep=;\ntext;label\na;1\nb;0\n", "title|description|label\na|b c d|1\ne|f g h|2\n"]
    texts = {
        ".json": [array, columns, jsonl],
        ".tsv": [tsv, pairs, quoted, "text\tlabel\r\na\t-1\r\nb\t1.0\r\n"],
        ".csv": [csv, "label,review\nbad,a\ngood,b\n", *divided],
        ".jsonl": [jsonl],
    }
    found = []
    for kind, contents in texts.items():
        found += [bytes([FORMATS.index(kind)]) + text.encode() for text in contents]
        found += [bytes([FORMATS.index(kind + ".gz")]) + gzip.compress(text.encode(), mtime=0) for text in contents]
    frame = pd.DataFrame({"text": [text for text, _ in rows], "label": [1, 0, 1]})
    kinds = [
        frame,
        frame.assign(label=pd.Categorical(["bad", "good", "bad"])),
        frame.set_index("text"),
        frame.assign(label=[1.0, 0.0, None]),
    ]
    kinds += [
        frame.assign(text=[["a"], ["b"], ["c"]]),
        frame.assign(text=pd.to_datetime(["2001-01-01"] * 3)),
        frame.assign(text=[b"a", b"b", b"c"]),
    ]
    for table in kinds:
        out = io.BytesIO()
        table.to_parquet(out)
        found.append(bytes([FORMATS.index(".parquet")]) + out.getvalue())
    return found


def change(data: bytes, rng: random.Random) -> bytes:
    """A line of JSON, a line, or bytes changed; a gzip stream is packed again."""
    kind = FORMATS[data[0] % len(FORMATS)] if data else FORMATS[0]
    body = data[1:]
    if kind.endswith(".gz") and rng.random() < 0.7:
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError, ValueError, zlib.error):
            return data[:1] + change_bytes(body, rng)
        return data[:1] + gzip.compress(
            change(bytes([FORMATS.index(kind.removesuffix(".gz"))]) + body, rng)[1:], mtime=0
        )
    if kind == ".parquet" or rng.random() < 0.3:
        return data[:1] + change_bytes(body, rng)
    lines = body.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = rng.choice((change_json if kind in (".jsonl", ".json") else change_bytes)(lines[at], rng).split(b"\n"))
    if rng.random() < 0.3:
        lines.insert(at, rng.choice(lines))
    return data[:1] + b"\n".join(lines)


def once(data: bytes) -> None:
    path = FOLDER / f"texts{FORMATS[data[0] % len(FORMATS)] if data else '.tsv'}"
    path.write_bytes(data[1:])
    for labels, columns in (
        (None, Columns()),
        (("negative", "positive"), Columns()),
        (("1.0", "2.0", "1"), Columns(skip_unlabeled=True, label_map="1=0,0=1")),
    ):
        try:
            found = read_dataset(path, columns, labels)
        except BadData:
            continue
        assert found.texts
        assert all(
            example.text and example.text == example.text.strip() and 0 <= example.label < len(found.labels)
            for example in found.texts
        )
        assert sum(found.counts()) == len(found.texts)


if __name__ == "__main__":
    fuzz(__file__, once, seeds(), change)
