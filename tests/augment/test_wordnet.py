"""WordNet: where its files are looked for, and which words it gives for one."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from mbtsad_core.augment.wordnet import DEBIAN, find_wordnet, synonyms
from mbtsad_core.errors import BadData


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("film", ("movie", "picture show", "cine film", "coating")),  # by sense, spelt with spaces
        ("films", ("film", "movie", "picture show", "cine film", "coating")),  # inflected: its base form is a synonym
        ("movie", ("film", "picture show", "cine film")),
        ("boring", ("dull", "slow")),
        ("Truly", ("really",)),
        ("music", ()),
        ("", ()),
        ("don't", ()),
    ],
)
def test_the_synonyms_of_a_word(wordnet: Path, word: str, expected: tuple[str, ...]) -> None:
    assert synonyms(word) == expected


def test_threads_do_not_disturb_each_other(wordnet: Path) -> None:
    words = ["film", "story", "scene", "actor", "funny", "boring", "lovely", "stale", "truly", "move"] * 20
    found: list[list[tuple[str, ...]]] = []
    threads = [threading.Thread(target=lambda: found.append([synonyms(w) for w in words])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[synonyms(w) for w in words]] * 4


def test_the_files_are_found_where_the_environment_says(wordnet: Path) -> None:
    assert find_wordnet() == wordnet


def test_nltks_own_place_is_known(wordnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(wordnet, tmp_path / "corpora" / "wordnet")
    monkeypatch.delenv("WNSEARCHDIR")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert find_wordnet() == (DEBIAN if (DEBIAN / "data.noun").exists() else tmp_path / "corpora" / "wordnet")


def test_without_the_files_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    with pytest.raises(
        BadData,
        match=r"WordNet's files are not on this machine .*apt-get install wordnet-base, or python -m nltk\.downloader",
    ):
        synonyms("film")


def test_a_folder_that_lacks_a_file_is_none(wordnet: Path) -> None:
    (wordnet / "adj.exc").unlink()
    assert find_wordnet() is None


@pytest.mark.skipif(not (DEBIAN / "data.noun").exists(), reason="Debian's wordnet-base is not installed")
def test_the_real_wordnet_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    assert {"film", "picture"} <= set(synonyms("movie"))
    assert "drilling" in synonyms("boring")
    assert all(word == word.lower() and word.replace(" ", "").isalpha() for word in synonyms("good"))
