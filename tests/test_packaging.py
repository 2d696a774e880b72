"""What is installed: pinned versions, public names, quick imports, and a wheel that runs the demo from an empty
directory."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, tiny_texts, write_tsv
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mbtsad_core
from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig
from mbtsad_core.models.classifier import Classifier, load_classifier
from mbtsad_core.service.purification import read_model

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
HEAVY = {
    "torch",
    "transformers",
    "pandas",
    "plotly",
    "gradio",
    "rich",
    "datasets",
    "numpy",
    "pyarrow",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
}


def lines(name: str) -> list[str]:
    return [
        line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]


def pins() -> dict[str, str]:
    """The version of each package in constraints.txt."""
    return {
        canonicalize_name(r.name): next(iter(r.specifier)).version for r in map(Requirement, lines("constraints.txt"))
    }


# ---------------------------------------------------------------- versions


def test_requirements_txt_equals_the_dependencies_of_pyproject() -> None:
    assert lines("requirements.txt") == PROJECT["dependencies"]


@pytest.mark.parametrize("line", lines("constraints.txt"))
def test_a_constraint_is_an_exact_pin(line: str) -> None:
    (specifier,) = Requirement(line).specifier
    assert specifier.operator == "=="
    assert "*" not in specifier.version


def test_no_package_is_pinned_twice() -> None:
    assert len(pins()) == len(lines("constraints.txt"))


@pytest.mark.parametrize("needed", NEEDED)
def test_a_dependency_is_pinned_within_its_range(needed: str) -> None:
    requirement = Requirement(needed)
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_the_build_backend_is_pinned_within_its_range() -> None:
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert Requirement(backend).specifier.contains(pins()["hatchling"])


# ---------------------------------------------------------------- public names


@pytest.mark.parametrize("name", mbtsad_core.__all__)
def test_a_public_name_resolves(name: str) -> None:
    found = getattr(mbtsad_core, name)
    assert found if name.isupper() else found.__name__ == name


def test_no_public_name_is_that_of_a_submodule() -> None:
    """Else the name would mean the module as soon as anything has imported it."""
    assert {path.stem for path in Path(mbtsad_core.__file__).parent.iterdir()} & set(mbtsad_core.__all__) == set()


def test_the_names_that_type_checkers_see_are_the_public_ones() -> None:
    tree = ast.parse(Path(mbtsad_core.__file__).read_text(encoding="utf-8"))
    seen = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and "mbtsad_core" in node.module
        for alias in node.names
    ]
    assert sorted(seen) == sorted(mbtsad_core.__all__)


def test_dir_lists_the_public_names() -> None:
    assert set(mbtsad_core.__all__) <= set(dir(mbtsad_core))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'purfy'"):
        mbtsad_core.purfy  # noqa: B018


# ---------------------------------------------------------------- quick imports


HELP = """
import contextlib, os
from mbtsad_core.cli import main
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.suppress(SystemExit):
    main({})
"""


@pytest.mark.parametrize(
    "code",
    [
        "import mbtsad_core",
        "from mbtsad_core import PurifyConfig, LabelledText, MBTSADError",
        HELP.format(["--help"]),
        HELP.format(["purify", "--help"]),
    ],
    ids=["the package", "light public names", "mbtsad --help", "mbtsad purify --help"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "mbtsad_core" in run.stdout
    assert set(run.stdout.split()) & HEAVY == set()


# ---------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An otherwise empty directory that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("elsewhere") / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", folder, wheel]
    subprocess.run(command, cwd=folder.parent, capture_output=True, check=True)
    return folder


def run_there(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python beside the installed package, away from the checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *command], cwd=installed.parent, env=environment, capture_output=True, text=True
    )


def test_the_wheel_has_the_demo_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "mbtsad_core/assets/demo/clean.tsv",
        "mbtsad_core/assets/demo/test.tsv",
        "mbtsad_core/cli/__init__.py",
    } <= set(names)
    assert [name for name in names if not name.startswith(("mbtsad_core/", "mbtsad-"))] == []


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "mbtsad_core").rglob("*.py")} <= names


def test_the_wheel_has_the_command_and_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = [n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt")]
        commands = archive.read(entry_points).decode()
        assert "mbtsad = mbtsad_core.cli:main" in commands
        assert "mbtsad-research = mbtsad_core.research.cli:main" in commands
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_the_installed_package_is_imported_from_where_it_was_installed(installed: Path) -> None:
    run = run_there(
        installed,
        "-c",
        "import mbtsad_core; from mbtsad_core.models.demo import assets; print(mbtsad_core.__file__); print(assets())",
    )
    assert run.stdout.splitlines() == [
        str(installed / "mbtsad_core" / "__init__.py"),
        str(installed / "mbtsad_core" / "assets"),
    ], run.stderr


def test_the_installed_package_knows_its_version(installed: Path) -> None:
    assert run_there(installed, "-m", "mbtsad_core.cli", "--version").stdout == f"mbtsad {PROJECT['version']}\n"


@pytest.mark.skipif(
    not (ROOT / "assets" / "demo" / "suspect").is_dir(),
    reason="assets/demo/suspect is not built: mbtsad-research build-demo",
)
def test_the_installed_package_measures_the_demo(installed: Path) -> None:
    run = run_there(installed, "-m", "mbtsad_core.cli", "evaluate", "--json")
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["cacc"] >= 0.8
    assert figures["asr"] >= 0.95


def test_the_readmes_python_trains_where_the_command_line_does(
    suspect_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device and in the precision that a machine has for it, and not on its CPU in float32 whatever stands
    beside that."""
    (block,) = re.findall(
        r"```python\n(from mbtsad_core import .*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    write_tsv(tmp_path / "clean.tsv", tiny_texts(64, seed=1))
    monkeypatch.chdir(tmp_path)
    quick = "PurifyConfig(found_tokens=0, retrain=RetrainConfig(epochs=1), distil=DistilConfig(epochs=1))"
    assert "PurifyConfig()" in block
    found: dict[str, object] = {"RetrainConfig": RetrainConfig, "DistilConfig": DistilConfig}
    exec(block.replace("path/to/model", str(suspect_dir)).replace("PurifyConfig()", quick), found)
    as_in_the_terminal = read_model(str(suspect_dir), "suspect", None, RuntimeConfig())
    suspect = found["suspect"]
    assert isinstance(suspect, Classifier)
    assert (suspect.device, suspect.precision, suspect.max_length) == (
        as_in_the_terminal.device,
        as_in_the_terminal.precision,
        as_in_the_terminal.max_length,
    )
    assert load_classifier(tmp_path / "purified" / "model").labels == suspect.labels
