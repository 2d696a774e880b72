"""The README's front matter, which a Space on Hugging Face is configured by; and the tree that a Space runs, in which
the package is not installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
CPU_HARDWARE = {"cpu-basic", "cpu-upgrade"}
ZERO_GPU_PYTHON = {"3.10.13", "3.12.12"}

# Every key of https://huggingface.co/docs/hub/spaces-config-reference (read in November 2026), and `license` of the
# Hub's cards.
KEYS: dict[str, type] = {
    **dict.fromkeys(
        (
            "title",
            "emoji",
            "colorFrom",
            "colorTo",
            "sdk",
            "python_version",
            "sdk_version",
            "suggested_hardware",
            "suggested_storage",
        ),
        str,
    ),
    **dict.fromkeys(
        ("app_file", "base_path", "header", "short_description", "thumbnail", "startup_duration_timeout", "license"),
        str,
    ),
    **dict.fromkeys(("fullWidth", "pinned", "hf_oauth", "disable_embedding"), bool),
    **dict.fromkeys(("app_port", "hf_oauth_expiration_minutes"), int),
    **dict.fromkeys(("models", "datasets", "tags", "hf_oauth_scopes", "preload_from_hub"), list),
    "custom_headers": dict,
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def front_matter(readme: str) -> dict[str, Any]:
    """The mapping between the first two lines of three dashes."""
    begin, block, _ = re.split(r"^---$\n", readme, maxsplit=2, flags=re.MULTILINE)
    assert begin == "", "the front matter is the very first thing in the file"
    return yaml.safe_load(block)  # type: ignore[no-any-return]


README = (ROOT / "README.md").read_text(encoding="utf-8")
SPACE = front_matter(README)


@pytest.mark.parametrize("key", SPACE)
def test_a_key_is_one_that_the_hub_knows_and_has_its_type(key: str) -> None:
    assert type(SPACE[key]) is KEYS[key]


def test_what_a_gradio_space_needs_is_there() -> None:
    assert SPACE.keys() >= {
        "title",
        "emoji",
        "colorFrom",
        "colorTo",
        "sdk",
        "sdk_version",
        "python_version",
        "app_file",
        "license",
        "short_description",
    }
    assert SPACE["sdk"] == "gradio"


def test_no_key_comes_twice() -> None:
    keys = re.findall(r"^(\w+):", README.split("---\n")[1], flags=re.MULTILINE)
    assert sorted(keys) == sorted(SPACE)


def test_the_gradio_of_the_space_is_the_one_that_is_tested() -> None:
    pins = {
        canonicalize_name(r.name): r.specifier
        for r in map(Requirement, (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    }
    assert pins["gradio"] == SpecifierSet(f"=={SPACE['sdk_version']}")


def test_the_python_of_the_space_is_one_that_the_package_and_zero_gpu_take() -> None:
    version = SPACE["python_version"]
    assert version in ZERO_GPU_PYTHON
    assert version in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {version.rpartition('.')[0]}" in PROJECT["classifiers"]


def test_the_looks() -> None:
    assert {SPACE["colorFrom"], SPACE["colorTo"]} <= COLOURS
    assert 0 < len(SPACE["short_description"]) <= 60
    assert len(SPACE["emoji"]) <= 2
    assert not SPACE["emoji"].isascii()


def test_the_hardware_is_one_that_the_demo_needs() -> None:
    """No more: who wants a GPU chooses one."""
    from huggingface_hub import SpaceHardware

    assert SPACE["suggested_hardware"] in CPU_HARDWARE & {h.value for h in SpaceHardware}


def test_the_time_to_start_is_a_duration() -> None:
    assert re.fullmatch(r"[1-9]\d*[smh]", SPACE["startup_duration_timeout"])


def test_the_license_is_the_packages() -> None:
    assert SPACE["license"] == PROJECT["license"].lower()


def test_the_app_file_is_there_and_so_is_what_it_installs() -> None:
    assert (ROOT / SPACE["app_file"]).is_file()
    assert (ROOT / "requirements.txt").is_file()


def test_the_readme_goes_on_with_its_title() -> None:
    assert README.split("---\n", 2)[2].lstrip().startswith(f"# {SPACE['title']}\n")


# ---------------------------------------------------------------- the tree that a Space runs


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a Space gets, in a place of their own."""
    folder = tmp_path_factory.mktemp("space")
    shutil.copy2(ROOT / "app.py", folder)
    for name in ("mbtsad_core", "assets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_there(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the tree, whose modules come before installed ones."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def test_the_page_is_found_beside_app_py(tree: Path) -> None:
    code = (
        "import mbtsad_core.page.launch as launch; launch.build_parser(); from mbtsad_core.models.demo import "
        "assets; print(launch.__file__); print(assets())"
    )
    run = run_there(tree, "-c", code)
    assert run.stdout.splitlines() == [str(tree / "mbtsad_core" / "page" / "launch.py"), str(tree / "assets")], (
        run.stderr
    )


def test_app_py_runs_from_the_tree(tree: Path) -> None:
    run = run_there(tree, "app.py", "--help")
    assert run.returncode == 0, run.stderr
    assert "--jobs" in run.stdout


def test_the_whole_page_is_built_from_the_tree(tree: Path, tmp_path: Path) -> None:
    """Scripts and styles that the package reads from beside its modules are in it too."""
    code = f"""
from pathlib import Path
from mbtsad_core.config import JobsConfig
from mbtsad_core.page.launch import make_runner, routes
from mbtsad_core.page.page import build_page
from mbtsad_core.page.site import Site
root = Path({str(tmp_path / "jobs")!r})
with make_runner(root, JobsConfig()) as runner:
    site = Site(root, runner)
    build_page(site), routes(site)
"""
    run = run_there(tree, "-W", "ignore", "-c", code)
    assert run.returncode == 0, run.stderr


# ---------------------------------------------------------------- what the documents promise


def test_every_option_that_the_hosting_page_names_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    from mbtsad_core import cli
    from mbtsad_core.page import launch

    text = (ROOT / "docs" / "hosting.md").read_text(encoding="utf-8")
    known = set(re.findall(r"--[a-z-]+", launch.build_parser().format_help()))
    with pytest.raises(SystemExit):
        cli.main(["publish", "--help"])
    known |= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    dockers = {"--rm", "--gpus", "--build-arg", "--time"}
    assert set(re.findall(r"--[a-z-]+", text.replace("|---", ""))) - known - dockers == set()


def test_every_link_of_the_hosting_page_leads_somewhere() -> None:
    page = ROOT / "docs" / "hosting.md"
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
