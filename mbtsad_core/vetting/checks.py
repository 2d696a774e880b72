"""What a value of a configuration may be: small predicates, each saying what it expected."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], str]  # "" where the value is sound, else what was expected


def whole(low: int, high: int, *, none: bool = False) -> Check:
    """A whole number from `low` to `high`; None too where `none`."""

    def check(value: Any) -> str:
        if (value is None and none) or (
            isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        ):
            return ""
        return f"a whole number from {low} to {high}"

    return check


def real(low: float, high: float, *, none: bool = False) -> Check:
    """A finite number from `low` to `high`; None too where `none`."""

    def check(value: Any) -> str:
        if value is None and none:
            return ""
        if (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and low <= value <= high
            and math.isfinite(value)
        ):
            return ""
        return f"a number from {low:g} to {high:g}"

    return check


def one_of(*values: Any) -> Check:
    """One of the values, of the same type."""

    def check(value: Any) -> str:
        if any(type(value) is type(known) and value == known for known in values):
            return ""
        return f"one of {', '.join(map(repr, values))}"

    return check


flag = one_of(True, False)


def string(longest: int = 256, *, none: bool = False) -> Check:
    """A text of whatever characters; None too where `none`."""

    def check(value: Any) -> str:
        if (value is None and none) or (isinstance(value, str) and len(value) <= longest):
            return ""
        return f"a text of {longest} characters at most"

    return check


def text(longest: int = 256, *, none: bool = False) -> Check:
    """A text of visible characters; None too where `none`."""

    def check(value: Any) -> str:
        if (value is None and none) or (isinstance(value, str) and len(value) <= longest and visible(value)):
            return ""
        return f"a text of visible characters, {longest} at most"

    return check


def list_of(item: Check, most: int, *, none: bool = False) -> Check:
    """A list of `most` items at most, each of which passes `item`; None too where `none`."""

    def check(value: Any) -> str:
        if value is None and none:
            return ""
        if not isinstance(value, list) or len(value) > most:
            return f"a list of {most} at most"
        return next((f"a list, each of it {wrong}" for wrong in map(item, value) if wrong), "")

    return check


def either(*checks: Check) -> Check:
    """What any of the checks allows."""

    def check(value: Any) -> str:
        wrong = [check(value) for check in checks]
        return "" if "" in wrong else " or ".join(wrong)

    return check


def shows(character: str) -> bool:
    """Whether a character can be seen: no control, direction, surrogate or line separator."""
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(value: str) -> bool:
    """Whether every character of a text can be seen."""
    return all(map(shows, value))
