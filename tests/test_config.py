"""Settings: ranges and choices are checked, unknown keys are refused, and nothing gets lost on the way to JSON and
back."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from typing import Any

import pytest

from mbtsad_core import config
from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.badnets import BadNetsConfig
from mbtsad_core.attacks.embedding_poisoning_method import EmbeddingPoisoningConfig
from mbtsad_core.config import (
    Config,
    DistilConfig,
    PoisonConfig,
    RetrainConfig,
    RuntimeConfig,
    Setting,
    SplitConfig,
    TrainingConfig,
    from_dict,
    replace,
    settings,
    to_dict,
)
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.errors import BadConfig
from mbtsad_core.flags import add_settings, read_settings

METHODS = [*ATTACKS.values(), *DEFENSES.values(), *DETECTORS.values()]
KINDS: list[type[Config]] = [
    k for k in vars(config).values() if isinstance(k, type) and issubclass(k, Config) and k is not Config
]
KINDS += {type(method.config): None for method in METHODS if type(method.config) not in KINDS}
each_kind = pytest.mark.parametrize("kind", KINDS)  # one test for all settings of a config: there are some hundred
CHANGED = replace(
    PurifyConfig(),
    {
        ("split", "copies"): 7,
        ("retrain", "dropout"): 0.25,
        ("distil", "alpha"): 3.5,
        ("seed",): 11,
        ("found_tokens",): 0,
        ("split", "fresh"): False,
    },
)


# ---------------------------------------------------------------- what every setting has


@each_kind
def test_every_setting_has_a_help_text(kind: type[Config]) -> None:
    for setting in settings(kind()):
        assert len(setting.help) > 10, setting
        assert setting.help == setting.help.strip(), setting
        assert not setting.help.endswith("."), setting


@each_kind
def test_every_number_has_a_range_and_every_word_its_choices(kind: type[Config]) -> None:
    for setting in settings(kind()):
        if setting.type in (int, float):
            assert setting.low is not None, setting
            assert setting.high is not None, setting
            assert setting.low < setting.high, setting
        elif setting.path != ("device",):  # GPUs are counted
            assert setting.type is bool or setting.choices, setting


@each_kind
def test_every_default_is_a_value_that_can_be_given(kind: type[Config]) -> None:
    for setting in settings(kind()):
        assert replace(kind(), {setting.path: setting.default}) == kind(), setting


def test_every_config_says_what_it_is_for() -> None:
    assert all(kind.__doc__ and not kind.__doc__.startswith(kind.__name__ + "(") for kind in KINDS)


def test_every_setting_of_the_core_is_a_flag_of_the_command_line() -> None:
    # That a command's help shows each of its settings is tested in test_cli.py.
    def parts(c: Config) -> set[type[Config]]:
        values = [getattr(c, f.name) for f in dataclasses.fields(c)]  # type: ignore[arg-type]
        return {type(c)}.union(*(parts(v) for v in values if isinstance(v, Config)))

    roots: list[Config] = [
        PurifyConfig(),
        config.EvaluateConfig(),
        config.LanguageModelConfig(),
        RuntimeConfig(),
        config.VettingConfig(),
        config.ScanConfig(),
    ]
    roots += [method.config for method in METHODS]
    # The page's, whose visitors share one machine
    served = {config.JobsConfig, config.UploadConfig, config.SandboxesConfig, config.SandboxConfig}
    assert set().union(*map(parts, roots)) == set(KINDS) - served


def test_flags_of_a_config_differ() -> None:
    for kind in KINDS:
        flags = [s.flag for s in settings(kind())]
        assert len(set(flags)) == len(flags)


def test_a_flag_is_the_path_in_dashes() -> None:
    assert [s.flag for s in settings(PurifyConfig()) if s.path == ("retrain", "learning_rate")] == [
        "--retrain-learning-rate"
    ]


def test_settings_come_with_the_configs_own_values() -> None:
    found = {s.path: s.default for s in settings(CHANGED)}
    assert (found["split", "copies"], found["retrain", "dropout"], found["seed",]) == (7, 0.25, 11)


@pytest.mark.parametrize(
    ("kind", "path", "type_"),
    [
        (SplitConfig, ("copies",), int),
        (SplitConfig, ("aug_p",), float),
        (SplitConfig, ("fresh",), bool),
        (TrainingConfig, ("dropout",), float),
        (RuntimeConfig, ("threads",), int),
        (RuntimeConfig, ("precision",), str),
        (PoisonConfig, ("mode",), str),
    ],
)
def test_a_setting_knows_its_type(kind: type[Config], path: tuple[str, ...], type_: type) -> None:
    assert [s.type for s in settings(kind()) if s.path == path] == [type_]


# ---------------------------------------------------------------- ranges and choices


def ranged(kind: type[Config]) -> list[Setting]:
    return [setting for setting in settings(kind()) if setting.low is not None]


def test_most_settings_have_a_range() -> None:
    assert sum(len(ranged(kind)) for kind in KINDS) > 400


@each_kind
def test_the_ends_of_a_range_are_in_it(kind: type[Config]) -> None:
    for setting in ranged(kind):
        for end in (setting.low, setting.high):
            assert end is not None, setting
            value = setting.type(end)
            changed = settings(replace(kind(), {setting.path: value}))
            assert {s.path: s.default for s in changed}[setting.path] == value, setting


@each_kind
def test_what_is_beyond_a_range_is_refused_with_its_end(kind: type[Config]) -> None:
    for setting in ranged(kind):
        assert setting.low is not None
        assert setting.high is not None
        with pytest.raises(BadConfig, match=rf"`{setting.path[-1]}` must be at least .*; got"):
            replace(kind(), {setting.path: setting.type(math.floor(setting.low) - 1)})
        with pytest.raises(BadConfig, match=rf"`{setting.path[-1]}` must be at most .*; got"):
            replace(kind(), {setting.path: setting.type(math.ceil(setting.high) + 1)})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(value: float) -> None:
    with pytest.raises(BadConfig, match="`learning_rate` must be at"):
        RetrainConfig(learning_rate=value)


def test_a_message_names_setting_range_and_value() -> None:
    with pytest.raises(BadConfig, match=r"^`copies` must be at least 1; got 0\.$"):
        SplitConfig(copies=0)


def test_a_word_that_is_no_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(BadConfig, match=r"^`mode` must be one of dirty, clean, mixed; got 'filthy'\.$"):
        PoisonConfig(mode="filthy")  # type: ignore[arg-type]


def test_a_whole_number_is_a_number() -> None:
    assert TrainingConfig(warmup=1, dropout=0).warmup == 1


@pytest.mark.parametrize(("kind", "name"), [(TrainingConfig, "dropout"), (RuntimeConfig, "threads")])
def test_where_nothing_need_be_given_nothing_can_be_given(kind: type[Config], name: str) -> None:
    assert getattr(from_dict(kind, {name: None}), name) is None


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PurifyConfig().seed = 3  # type: ignore[misc]


# ---------------------------------------------------------------- replace


def test_leaves_are_replaced_and_all_others_kept() -> None:
    before, after = ({s.path: s.default for s in settings(c)} for c in (PurifyConfig(), CHANGED))
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {
        ("split", "copies"),
        ("retrain", "dropout"),
        ("distil", "alpha"),
        ("seed",),
        ("found_tokens",),
        ("split", "fresh"),
    }


def test_replacing_gives_a_copy() -> None:
    given = PurifyConfig()
    replace(given, {("split", "copies"): 9})
    assert given == PurifyConfig()


def test_replacing_nothing_gives_the_same_settings() -> None:
    assert replace(CHANGED, {}) == CHANGED


def test_replacing_keeps_the_kind_of_each_part() -> None:
    found = replace(PurifyConfig(), {("retrain", "epochs"): 4, ("distil", "epochs"): 5})
    assert (type(found.retrain), type(found.distil)) == (RetrainConfig, DistilConfig)


@pytest.mark.parametrize(
    "path", [("bogus",), ("split", "bogus"), ("split",), ("split", "copies", "more"), (), ("alpha",)]
)
def test_an_unknown_setting_is_refused_with_the_known_ones(path: tuple[str, ...]) -> None:
    with pytest.raises(
        BadConfig, match=rf"^Unknown setting '{'.'.join(path)}'\. Known: distil\.alpha, .*split\.copies"
    ):
        replace(PurifyConfig(), {path: 1})


# ---------------------------------------------------------------- plain values


@pytest.mark.parametrize("kind", KINDS)
def test_settings_come_back_from_json(kind: type[Config]) -> None:
    assert from_dict(kind, json.loads(json.dumps(to_dict(kind())))) == kind()


def test_changed_settings_come_back_from_json() -> None:
    assert from_dict(PurifyConfig, json.loads(json.dumps(to_dict(CHANGED)))) == CHANGED


def test_settings_that_are_left_out_have_their_defaults() -> None:
    assert from_dict(PurifyConfig, {"split": {"copies": 7}}) == replace(PurifyConfig(), {("split", "copies"): 7})


@pytest.mark.parametrize(
    "values", [{"bogus": 1}, {"split": {"bogus": 1}}, {"split": 3}, {"seed": {"more": 1}}, {"split": None}]
)
def test_unknown_keys_are_refused(values: dict[Any, Any]) -> None:
    with pytest.raises(BadConfig, match="Unknown setting"):
        from_dict(PurifyConfig, values)


def test_values_beyond_their_range_are_refused() -> None:
    with pytest.raises(BadConfig, match="`epochs` must be at least 1; got 0"):
        from_dict(BadNetsConfig, {"training": {"epochs": 0}})


def test_plain_values_hold_every_setting() -> None:
    assert to_dict(EmbeddingPoisoningConfig()) == {s.path[0]: s.default for s in settings(EmbeddingPoisoningConfig())}


# ---------------------------------------------------------------- types


@pytest.mark.parametrize("start", [*(method.config for method in METHODS), config.RuntimeConfig()])
def test_no_setting_takes_a_value_of_another_type(start: config.Config) -> None:
    wrong: dict[type, list[Any]] = {
        int: [2.5, 2.0, True, "2", None],
        float: [True, "0.5"],
        bool: [1, 0, "true", 0.5],
        str: [1, True, 2.5],
    }
    for s in settings(start):
        for value in wrong[s.type]:
            if value is None and s.default is None:
                continue
            with pytest.raises(BadConfig, match=rf"`{s.path[-1]}` must be "):
                replace(start, {s.path: value})


def test_a_type_is_checked_however_a_setting_is_given() -> None:
    with pytest.raises(BadConfig, match=r"`copies` must be a whole number; got 2\.5\."):
        config.SplitConfig(copies=2.5)  # type: ignore[arg-type]
    with pytest.raises(BadConfig, match=r"`seed` must be a whole number; got True\."):
        config.from_dict(PurifyConfig, {"seed": True})
    with pytest.raises(BadConfig, match=r"`dropout` must be a number or nothing; got 'none'\."):
        replace(PurifyConfig(), {("retrain", "dropout"): "none"})
    with pytest.raises(BadConfig, match=r"`split` must be a SplitConfig; got 3\."):
        PurifyConfig(split=3)  # type: ignore[arg-type]


def test_a_whole_number_is_a_number_too() -> None:
    assert replace(PurifyConfig(), {("distil", "alpha"): 2}).distil.alpha == 2
    assert replace(PurifyConfig(), {("retrain", "dropout"): None}).retrain.dropout is None


# ---------------------------------------------------------------- earlier names

EARLIER = {
    ("split", "originals"): ("split", "keep_originals"),
    ("split", "share"): ("split", "aug_p"),
    ("split", "least"): ("split", "aug_min"),
    ("split", "cap"): ("split", "aug_max"),
    ("split", "min_length"): ("split", "min_char"),
    ("strays",): ("found_tokens",),
}
GIVEN = {"originals": 3, "share": 0.5, "least": 2, "cap": 7, "min_length": 5, "strays": 4}


def test_a_stored_run_is_read_under_the_names_that_its_settings_had() -> None:
    stored = {"split": {name: value for name, value in GIVEN.items() if name != "strays"}, "strays": GIVEN["strays"]}
    read = from_dict(PurifyConfig, stored)
    for old, new in EARLIER.items():
        value = read
        for name in new:
            value = getattr(value, name)
        assert value == GIVEN[old[-1]]


def test_a_script_may_use_the_flags_that_settings_had() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser, PurifyConfig(), "settings")
    old = [word for path in EARLIER for word in ("--" + "-".join(path).replace("_", "-"), str(GIVEN[path[-1]]))]
    new = [
        word for path, to in EARLIER.items() for word in ("--" + "-".join(to).replace("_", "-"), str(GIVEN[path[-1]]))
    ]
    assert read_settings(parser.parse_args(old), PurifyConfig()) == read_settings(
        parser.parse_args(new), PurifyConfig()
    )
    assert read_settings(parser.parse_args(old), PurifyConfig()) != PurifyConfig()
    shown = parser.format_help()
    assert all(flag in shown for flag in new[::2])
    assert not any(flag in shown for flag in old[::2])
