"""SARIF 2.1.0, the format that code hosts show findings by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The log of some runs (`run_of`)."""
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": list(runs)}


def run_of(
    tool: str, version: str, rules: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], *, successful: bool
) -> dict[str, Any]:
    """A run of a tool; `successful`: it came to a verdict."""
    places = {rule["id"]: place for place, rule in enumerate(rules)}
    indexed = [one | ({"ruleIndex": places[one["ruleId"]]} if one["ruleId"] in places else {}) for one in results]
    return dict(
        tool=dict(driver=dict(name=tool, version=version, rules=list(rules))),
        invocations=[dict(executionSuccessful=successful)],
        results=indexed,
    )


def rule_of(name: str, what: str, why: str, remedy: str = "") -> dict[str, Any]:
    """A rule: what it finds, why that matters, and what to do."""
    told = dict(shortDescription=what, fullDescription=why, help=remedy or why)
    return dict(id=name, **{part: dict(text=text) for part, text in told.items()})


def result_of(rule: str, level: str, message: str, place: str) -> dict[str, Any]:
    """A finding; `place` is a file, or what else it is of, and may be none."""
    at = [dict(physicalLocation=dict(artifactLocation=dict(uri=quote(place))))] if place else []
    return dict(ruleId=rule, level=level, message=dict(text=message), locations=at)
