"""Where a model or labeled texts come from, as a user writes it."""

from __future__ import annotations

import re
from pathlib import PurePath

HUB = "hub:"


class Source(str):
    """The packaged demo, a repository of the Hub, or a place of files; as a string, what was written.

    A model   "demo", hub:OWNER/NAME[@REVISION], a folder, a .zip
    Texts     "demo", hub:OWNER/NAME[:CONFIG][@SPLIT], a file
    """

    __slots__ = ()

    @property
    def is_demo(self) -> bool:
        return self == "demo"

    @property
    def is_hub(self) -> bool:
        return self.startswith(HUB)

    @property
    def hub_id(self) -> str | None:
        """OWNER/NAME of a repository of the Hub; None for all else."""
        match = re.match(rf"{HUB}(\w[\w.-]*/\w[\w.-]*)(?=[:@]|\Z)", self, re.ASCII)
        return match[1] if match else None

    @property
    def shown(self) -> Source:
        """For anyone to read: of a place of this machine the last name alone."""
        return self if self.is_hub else Source(PurePath(self).name)

    def at(self, commit: str) -> Source:
        """The Hub's model, fixed at a commit."""
        return Source(f"{self.partition('@')[0]}@{commit}")


DEMO = Source("demo")
