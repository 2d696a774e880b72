"""Known flaws of what is installed: floors of versions for those that shaped the design, and pip-audit for all others,
where its database is to be reached."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
import warnings

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# The first version without the flaw, by advisory.
FLAWS = {
    "gradio": {
        "CVE-2023-51449": "4.11",  # files of the machine through /file=
        "CVE-2024-1728": "4.19.2",  # uploads that name other paths
        "CVE-2024-47164": "5.0",  # check of paths
        "CVE-2024-47167": "5.0",  # the server fetches addresses for a visitor
        "CVE-2024-47868": "5.0",  # files leak through what components give back
        "CVE-2026-28416": "6.6",  # gr.load fetches addresses
        "PYSEC-2026-65": "6.6",  # redirect after a login
        "CVE-2026-28414": "6.7",  # absolute paths on Windows
        "PYSEC-2026-2178": "6.15",  # cookies in a client that all share
        "CVE-2026-49119": "6.16",  # FileExplorer
        "/file=<url> proxy": "6.20",
        "login and redirects": "6.22",
    },
    "torch": {"CVE-2025-32434": "2.6", "CVE-2026-24747": "2.10"},  # what torch.load(weights_only=True) runs
    "transformers": {
        "CVE-2024-3568": "4.38",  # pickles in checkpoints
        "CVE-2024-11392": "4.48",
        "CVE-2025-3933": "4.53",  # regular expressions that take for ever
        "CVE-2025-5197": "4.53",
        "CVE-2026-1839": "5.0.0rc3",  # the Trainer's random state is a pickle
        "CVE-2026-4372": "5.3",  # kernels of the Hub, run whatever trust_remote_code says
        "CVE-2026-5241": "5.3",  # a config's own trust_remote_code
    },
}
PAIRS = [(package, advisory, fixed) for package, flaws in FLAWS.items() for advisory, fixed in flaws.items()]


def lowest(package: str) -> Version:
    """The lowest version that pyproject allows."""
    (needed,) = [r for r in map(Requirement, PROJECT["dependencies"]) if canonicalize_name(r.name) == package]
    (floor,) = [s.version for s in needed.specifier if s.operator == ">="]
    return Version(floor)


def pins() -> dict[str, Version]:
    """The version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.partition("==")[0]): Version(line.partition("==")[2]) for line in lines}


@pytest.mark.parametrize(
    ("package", "advisory", "fixed"), PAIRS, ids=[f"{package} {advisory}" for package, advisory, _ in PAIRS]
)
def test_no_version_with_a_known_flaw_can_be_installed(package: str, advisory: str, fixed: str) -> None:
    assert lowest(package) >= Version(fixed), advisory
    assert pins()[package] >= Version(fixed), advisory


def test_parts_with_flaws_of_their_own_are_not_used() -> None:
    """gr.load, FileExplorer, components that fetch addresses; pickles, torch.load, trust in code of the Hub."""
    banned = {
        "load",
        "FileExplorer",
        "Image",
        "ImageEditor",
        "Gallery",
        "Audio",
        "Video",
        "Model3D",
        "Chatbot",
        "DownloadButton",
        "set_static_paths",
    }
    for path in (ROOT / "mbtsad_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("gr", "gradio")
            ):
                assert node.attr not in banned, f"{path}: gr.{node.attr}"
            assert not isinstance(node, ast.Attribute) or ast.unparse(node) != "torch.load", path
            if isinstance(node, ast.keyword) and node.arg in ("allowed_paths", "trust_remote_code"):
                assert ast.unparse(node.value) == "False", f"{path}: {node.arg}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not names & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}, path


@pytest.mark.slow  # it asks a database on the network for each package
@pytest.mark.skipif(
    importlib.util.find_spec("pip_audit") is None,
    reason="pip-audit is not installed: pip install -c constraints.txt '.[test]'",
)
def test_pip_audit_knows_of_no_flaw_in_what_is_pinned() -> None:
    """Of the versions of constraints.txt: they are what is tested, and what the README has one install.

    pip-audit calls it a success where it could ask of no package at all, so what it did ask is counted.
    """
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "-r",
        str(ROOT / "constraints.txt"),
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
    ]
    try:
        run = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "5"], capture_output=True, text=True, timeout=300
        )
        found = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):  # it breaks off where it reaches nothing
        found = []
    audited = [package for package in found if "vulns" in package]
    if len(audited) < len(pins()) / 2:
        notice = f"pip-audit reached no database: {len(audited)} of {len(pins())} packages were audited"
        warnings.warn(notice, UserWarning, stacklevel=1)
        pytest.skip(notice)
    flawed = {package["name"]: [flaw["id"] for flaw in package["vulns"]] for package in audited if package["vulns"]}
    assert flawed == {}
    assert len(audited) == len(pins()), [package for package in found if "vulns" not in package]
