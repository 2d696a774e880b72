"""Command-line flags made from the config dataclasses: one a setting, for the command line and for the page's
server; and the file that settings can be read from."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mbtsad_core.config import Config, Setting, flag_of, paths, replace, settings
from mbtsad_core.errors import BadConfig, named

MODEL_HELP = 'a directory, a .zip of one, hub:OWNER/NAME[@REVISION], or "demo"'
TEXTS_HELP = '.tsv, .csv, .json, .jsonl or .parquet, hub:OWNER/NAME[:CONFIG][@SPLIT], or "demo"'
NAMED = (  # in sentences of the core
    *("labels", "label_map", "labels_start_at", "skip_unlabeled", "text_column", "label_column", "pair_column"),
    *("target", "clean_amount", "out", "jobs", "resume", "device", "max_length", "no_surgery"),
    *("split.copies", "split.min_char", "retrain.batch_size", "distil.batch_size"),
)
FLAGS = {name: flag_of(tuple(name.split("."))) for name in NAMED} | {"test": "--test FILE", "trigger": "--trigger WORD"}
REPORTED = {("attention_loss",), ("clean_texts",), ("triggers",), ("target",)}
"""What a report tells of its run among the settings, and no setting is."""


def add_groups(parser: argparse.ArgumentParser, groups: Mapping[str, Config]) -> None:
    """--config, and the flags of each config under its title; what two configs have stands in the last one's group."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        action=SettingsFile,
        known=[s for config in groups.values() for s in settings(config)],
        help="read settings from this YAML or JSON file, by dotted or nested name, as a report has them under "
        '"settings"; flags given beside it win',
    )
    flags = [{s.flag for s in settings(config)} for config in groups.values()]
    for i, (title, config) in enumerate(groups.items(), 1):
        add_settings(parser, config, title, but=set().union(*flags[i:]))


def with_flags(sentence: object) -> str:
    """A sentence of the core with its settings called by their flags."""
    return named(sentence, FLAGS)


def add_settings(parser: argparse.ArgumentParser, config: Config, title: str, *, but: Collection[str] = ()) -> None:
    """One flag a setting, `but` these, with help, range, default and the paper's symbol."""
    group = parser.add_argument_group(title)
    for s in settings(config):
        if s.flag in but:
            continue
        default = "" if s.default is None else f"default {s.default}"  # of none the help says what that means
        about = "; ".join(filter(None, (s.bounds, s.symbol and f"the paper's {s.symbol}", default)))
        kind: dict[str, Any] = {"type": s.type, "metavar": s.type.__name__.upper()}
        if s.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif s.choices:
            kind = {"choices": s.choices}
        kind |= {"dest": "/".join(s.path), "default": None}
        group.add_argument(s.flag, help=(f"{s.help} ({about})" if about else s.help).replace("%", "%%"), **kind)
        if s.was:  # read, and not shown
            group.add_argument(flag_of(s.old_path), help=argparse.SUPPRESS, **kind)


def read_settings(args: argparse.Namespace, config: Config) -> Any:
    """The config with what a file and the flags set; raises BadConfig, which names the flag or the file's setting."""
    from_file: Mapping[tuple[str, ...], Any] = getattr(args, "config", None) or {}
    for s in settings(config):
        where, value = s.flag, getattr(args, "/".join(s.path))
        if value is None and s.path in from_file:
            where, value = f"--config: {'.'.join(s.path)}", from_file[s.path]
        elif value is None:
            continue
        try:
            config = replace(config, {s.path: value})
        except BadConfig as error:
            raise BadConfig(f"{where}: {named(error, {s.path[-1]: s.path[-1]})}") from error
    return config


class SettingsFile(argparse.Action):
    """--config FILE becomes the settings that the file names, by path."""

    def __init__(self, *given: Any, known: Sequence[Setting], **named: Any) -> None:
        super().__init__(*given, **named)
        self.known = {path: s for s in known for path in (s.path, s.old_path)}

    def __call__(self, parser: Any, namespace: argparse.Namespace, file: Any, option_string: str | None = None) -> None:
        named = {tuple(".".join(map(str, path)).split(".")): value for path, value in paths(read_mapping(file)).items()}
        if unknown := [".".join(path) for path in named if path not in self.known and path not in REPORTED]:
            known = ", ".join(sorted({".".join(s.path) for s in self.known.values()}))
            raise BadConfig(f"--config: {file} sets {unknown[0]}, which this command does not have. Known: {known}.")
        found: dict[tuple[str, ...], Any] = {}
        for path, value in named.items():
            if s := self.known.get(path):
                if isinstance(value, str) and s.type in (int, float):
                    with contextlib.suppress(ValueError):  # YAML takes 1e-4 for a text
                        value = s.type(value)
                found[s.path] = value
        setattr(namespace, self.dest, found)


def read_mapping(file: str) -> dict[str, Any]:
    """What a JSON or YAML file holds. Raises BadConfig where it cannot be read or holds no names with values."""
    import yaml

    try:
        with open(file, encoding="utf-8") as text:
            found = json.load(text) if file.endswith(".json") else yaml.safe_load(text)
    except OSError as error:
        raise BadConfig(f"--config: {file} cannot be read: {error.strerror}. Name a YAML or JSON file.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        at = " ".join(str(error).split())[:200]
        raise BadConfig(f"--config: {file} is neither YAML nor JSON: {at}. Correct it there.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise BadConfig(f"--config: {file} holds no settings. Expected names with values, as in: retrain.epochs: 2")
    return found
