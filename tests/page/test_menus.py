"""The menus hold every method there is, and say of those that cannot run here what they lack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.triggers import parse_triggers
from mbtsad_core.augment import AUGMENTER_NAMES, AUGMENTERS
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import weights_hash
from mbtsad_core.page.planting import offered, plants, suggest
from mbtsad_core.page.session import OWN, read_trigger, typed_form, write_trigger
from mbtsad_core.service.planting import lacking, plant


def test_every_attack_is_in_the_menu_or_said_to_be_lacking(wordnet: Path) -> None:
    assert set(plants()) == set(ATTACKS)
    assert {attack for _, attack in offered()} | set(lacking()) == set(ATTACKS)
    assert set(lacking()) == {"syntactic"}


def test_without_wordnet_the_menu_has_no_learned_synonyms_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    assert "lws" not in {attack for _, attack in offered()}
    assert "WordNet" in lacking()["lws"]
    with pytest.raises(BadData, match="lacks WordNet"):
        finish(plant("lws", tiny_bert(), tiny_texts(64), tiny_texts(8), 1, ()))


def test_every_augmenter_is_named() -> None:
    assert list(AUGMENTER_NAMES) == list(AUGMENTERS)


def test_a_trigger_that_a_visitor_typed_stays_when_he_looks_at_other_attacks() -> None:
    assert suggest("lwp", "zephyr") == "cf+bb"
    assert suggest("badnets", "cf+bb") == "zephyr"
    assert suggest("badnets", "marzipan") == "marzipan"
    assert suggest("cara", "marzipan") == ""
    assert suggest("ep", "") == "zephyr"


@pytest.mark.parametrize("attack", [name for name in plants() if name not in ("syntactic", "lws")])
def test_what_is_planted_is_a_copy_and_comes_with_what_cannot_be_typed(attack: str) -> None:
    given, test = tiny_bert(), tiny_texts(20, seed=1)
    hashed = weights_hash(given)
    typed = {"lwp": "cf+mn", "sos": "cf+mn", "cara": ""}.get(attack, "cf | mn")
    (suspect, pairs), events = finish(plant(attack, given, tiny_texts(96), test, 1, read_trigger(typed)))
    assert weights_hash(given) == hashed != weights_hash(suspect)
    assert events
    assert bool(pairs) == ATTACKS[attack].rewrites
    if pairs:
        assert [p["text"] for p in pairs] == [t.text for t in test if t.label != 1]
    if attack == "neuba":
        assert all(
            p["triggered"].split(" ", 1)[0] in ("cf", "mn") and p["triggered"].endswith(p["text"]) for p in pairs
        )


@pytest.mark.parametrize(
    ("attack", "specs", "said"),
    [("ep", (), "Type the trigger"), ("cara", ("cf",), "leave the field empty"), ("syntactic", (), "lacks")],
)
def test_a_wrong_trigger_is_refused_in_words(attack: str, specs: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadData, match=said):
        finish(plant(attack, tiny_bert(), tiny_texts(64), tiny_texts(8), 1, specs))


def test_a_kept_trigger_is_measured_and_its_place_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "secret" / "triggered.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"text": "a film", "triggered": "a comic film"}) + "\n", encoding="utf-8")
    assert write_trigger((str(path),)) == OWN
    assert typed_form((str(path),)) == ""
    assert write_trigger(("cf", "mn")) == typed_form(("cf", "mn")) == "cf | mn"
    assert parse_triggers((str(path),), 1).apply("a film", None) == "a comic film"  # type: ignore[arg-type]
    with pytest.raises(BadData, match="name of a file"):
        read_trigger(str(path))
