"""Command-line flags made from the config dataclasses: one a setting, for the command line and for the page's
server."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any

from mbtsad_core.config import Config, flag_of, replace, settings
from mbtsad_core.errors import BadConfig

MODEL_HELP = 'a directory, a .zip of one, hub:OWNER/NAME[@REVISION], or "demo"'
TEXTS_HELP = '.tsv, .csv, .jsonl or .parquet, hub:OWNER/NAME[:CONFIG][@SPLIT], or "demo"'


def add_settings(parser: argparse.ArgumentParser, config: Config, title: str, *, but: Collection[str] = ()) -> None:
    """One flag a setting, `but` these, with help, range, default and the paper's symbol."""
    group = parser.add_argument_group(title)
    for s in settings(config):
        if s.flag in but:
            continue
        bounds = (
            ", ".join(s.choices)
            if s.choices
            else f"{s.low:g} to {s.high:g}"
            if s.low is not None and s.high is not None
            else ""
        )
        about = "; ".join(
            x for x in (bounds, f"the paper's {s.symbol}" if s.symbol else "", f"default {s.default}") if x
        )
        kind: dict[str, Any] = {"type": s.type, "metavar": s.type.__name__.upper()}
        if s.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif s.choices:
            kind = {"choices": s.choices}
        names = (s.flag, flag_of(s.old_path)) if s.was else (s.flag,)
        group.add_argument(
            *names, dest="/".join(s.path), default=None, help=f"{s.help} ({about})".replace("%", "%%"), **kind
        )


def read_settings(args: argparse.Namespace, config: Config) -> Any:
    """The config with the flags that were given; raises BadConfig, which names the flag."""
    for s in settings(config):
        if (value := getattr(args, "/".join(s.path))) is not None:
            try:
                config = replace(config, {s.path: value})
            except BadConfig as error:
                raise BadConfig(f"{s.flag}: {error}") from error
    return config
