"""WordNet (Princeton, 3.0) through nltk's reader: the synonyms of a word. Its files are found on this machine and never
downloaded."""

from __future__ import annotations

import functools
import io
import os
import re
import threading
import warnings
from pathlib import Path
from typing import Any

from mbtsad_core.errors import BadData

DEBIAN = Path("/usr/share/wordnet")
NEEDED = tuple(
    name.format(part) for part in ("noun", "verb", "adj", "adv") for name in ("data.{}", "index.{}", "{}.exc")
)
LEXICOGRAPHERS = 45  # files of WordNet's makers, which every entry names by number
_reading = threading.Lock()  # nltk's reader moves about in open files


def find_wordnet() -> Path | None:
    """The folder of WordNet's files: $WNSEARCHDIR, that of Debian's wordnet-base, or one among nltk's own; None where
    there is none."""
    named = os.environ.get("WNSEARCHDIR")
    nltk_data = [Path(p) for p in os.environ.get("NLTK_DATA", "").split(os.pathsep) if p] + [
        Path.home() / "nltk_data",
        Path("/usr/share/nltk_data"),
    ]
    places = [Path(named)] if named else [DEBIAN, *(p / "corpora" / "wordnet" for p in nltk_data)]
    return next((p for p in places if all((p / name).is_file() for name in NEEDED)), None)


def synonyms(word: str) -> tuple[str, ...]:
    """All other words of the word's synsets, the most common sense first, in lower case, letters and spaces only.

    The word may be inflected ("movies"); its synonyms are in their base form. Raises BadData where WordNet's files are
    absent.
    """
    folder = find_wordnet()
    if folder is None:
        raise BadData(
            "WordNet's files are not on this machine (looked in $WNSEARCHDIR, /usr/share/wordnet and nltk's data). "
            "Install them: apt-get install wordnet-base, or python -m nltk.downloader -u wordnet; or name their "
            "folder in WNSEARCHDIR."
        )
    return _synonyms(str(folder), word)


@functools.lru_cache(maxsize=100_000)
def _synonyms(folder: str, word: str) -> tuple[str, ...]:
    with _reading:
        names = [name for synset in _reader(folder).synsets(word) for name in synset.lemma_names()]
    spelt = (" ".join(re.sub("[^a-z ]", "", re.sub("[_-]", " ", name.lower())).split()) for name in names)
    return tuple(dict.fromkeys(name for name in spelt if name and name != word.lower()))


@functools.cache
def _reader(folder: str) -> Any:
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):  # type: ignore[misc]
        """nltk's, which also expects files that Debian does not carry and that synonyms do not need."""

        def open(self, file: str) -> Any:
            if file == "lexnames" and not (Path(folder) / file).exists():
                return io.StringIO("".join(f"{i:02d}\tfile{i}\t0\n" for i in range(LEXICOGRAPHERS)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """No mapping to the WordNet that other languages refer to."""

    if folder not in nltk.data.path:
        nltk.data.path.append(folder)  # it opens no files elsewhere
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "multilingual functions are not available"
        return Reader(folder, None)
