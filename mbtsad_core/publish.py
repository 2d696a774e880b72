"""Publish the page from a checkout as a Space on Hugging Face: which files, as what kind of Space, and the upload.

The Hub takes large files (the demo models) into its own storage by itself; nothing needs to be set up for them.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mbtsad_core.errors import BadConfig, BadData, BadOutput

FILES = ("README.md", "LICENSE", "app.py", "requirements.txt", "constraints.txt", "packages.txt", "pyproject.toml")
DOCKER_FILES = ("Dockerfile", ".dockerignore")
FOLDERS = ("mbtsad_core", "assets", "docs")
NAME = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")
FRONT_MATTER = "---\n"
GRADIO_ONLY = ("sdk_version", "python_version", "app_file")


def project_files(folder: Path, *, docker: bool = False) -> list[Path]:
    """The files that a Space gets, relative to the checkout: all of FILES, and what is in FOLDERS, where it is a git
    checkout only what git knows, so that nothing that lies about is published. Raises BadData where one is missing."""
    named = [Path(name) for name in (*FILES, *(DOCKER_FILES if docker else ()))]
    missing = [
        str(name)
        for name in (*named, Path("mbtsad_core/__init__.py"), Path("assets/demo/suspect/model.safetensors"))
        if not (folder / name).is_file()
    ]
    if missing:
        raise BadData(
            f"{folder} is not a checkout of this project: {', '.join(missing)} is not there. Run this in the "
            "checkout, or name it with --folder."
        )
    found = [
        path.relative_to(folder) for name in FOLDERS for path in sorted((folder / name).rglob("*")) if path.is_file()
    ]
    found = [path for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)]
    known = _known_to_git(folder)
    return named + [path for path in found if known is None or path.as_posix() in known]


def _known_to_git(folder: Path) -> set[str] | None:
    """The tracked files; None where the folder is no git checkout of its own."""
    if not (folder / ".git").exists():
        return None
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BadData(
            f"git could not list the files of {folder}: {error}. Publish from an unpacked copy without .git, or "
            "install git."
        ) from error
    return set(listed.decode().split("\0"))


def for_docker(readme: str) -> str:
    """The README with the front matter of a Docker Space."""
    _, block, rest = readme.split(FRONT_MATTER, 2)
    lines = [line for line in block.splitlines() if line.partition(":")[0] not in (*GRADIO_ONLY, "sdk")]
    return "\n".join(["---", *lines, "sdk: docker", "app_port: 7860", "---", ""]) + rest


@contextlib.contextmanager
def staged(folder: Path, *, docker: bool = False) -> Iterator[Path]:
    """A folder with the Space's files and no others, as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="mbtsad-space-") as there:
        space = Path(there)
        for path in project_files(folder, docker=docker):
            (space / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, space / path)
        if docker:
            readme = space / "README.md"
            readme.write_text(for_docker(readme.read_text(encoding="utf-8")), encoding="utf-8")
        yield space


def check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise BadConfig(f"The Space: expected OWNER/NAME, as in ada/mbtsad, got {name!r}.")
    return name


def publish(
    name: str, folder: Path, *, docker: bool = False, private: bool = False, hardware: str | None = None
) -> str:
    """Create the Space if it is not there, and make its files those of the checkout; returns its address.

    Modules and assets that the checkout no longer has go from the Space too; other files of the Space stay.
    Raises BadConfig, BadData, and BadOutput where there is no token, no network, or no permission.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    check_name(name)
    with staged(folder, docker=docker) as space:
        if huggingface_hub.get_token() is None:
            raise BadOutput(
                "There is no Hugging Face token here. Make one that may write at "
                "https://huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN."
            )
        try:
            made = huggingface_hub.create_repo(
                name,
                repo_type="space",
                space_sdk="docker" if docker else "gradio",
                private=private or None,
                space_hardware=hardware,  # type: ignore[arg-type]
                exist_ok=True,
            )
            huggingface_hub.upload_folder(
                repo_id=name,
                repo_type="space",
                folder_path=space,
                commit_message="Publish",
                delete_patterns=[f"{folder}/*" for folder in FOLDERS],
            )
        except HfHubHTTPError as error:
            raise BadOutput(
                f"The Hub refused to publish {name}: {error}. Check the owner's name and that the token may write "
                "there."
            ) from error
        except Exception as error:  # the network's errors
            reason = str(error) or type(error).__name__
            raise BadOutput(
                f"The Hub could not be reached: {reason}. Check the network, and that HF_HUB_OFFLINE and "
                "TRANSFORMERS_OFFLINE are not set."
            ) from error
    return str(made)
