"""Performs the steps of a Dockerfile without Docker: `python container.py DOCKERFILE ROOT NAME=VALUE...`, as root in a
mount and a process namespace of its own. Then it becomes the image's command, which is process 1 there, as in a
container.

ROOT, an empty directory, becomes the root directory. The base image's system is stood in for by this machine's,
read-only, and its Python by the one that runs this. Every instruction is done as it stands, but for what would need the
network: `apt-get install` is left out, `pip install -r` only checks its files and puts the packages of this Python on
the path; `pip install .` is told to take no dependencies.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = ("bin", "sbin", "lib", "lib64", "usr")
BASE = "/opt/base"  # where `python` is in the base image
FROM_HERE = {
    "apt-get update && apt-get install -y --no-install-recommends wordnet-base && rm -rf /var/lib/apt/lists/*": "true",
    "pip install -c constraints.txt -r requirements.txt": "test -s constraints.txt && test -s requirements.txt && "
    "python -c \"import sysconfig; open(sysconfig.get_path('purelib') + '/here.pth', 'w').write('{packages}')\"",
    "pip install -c constraints.txt .": "pip install --quiet --no-index --no-deps --no-build-isolation .",
}


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, arguments) of each, with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def ignored(rules: str, path: str) -> bool:
    """Whether .dockerignore leaves out a path of the context: the last rule that fits it or a folder above it
    counts."""
    out = False
    for rule in filter(None, (line.partition("#")[0].strip() for line in rules.splitlines())):
        wanted, pattern = rule.startswith("!"), rule.lstrip("!").strip("/")
        expression = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{expression}(?:/.*)?", path):
            out = not wanted
    return out


@dataclass
class Image:
    """What the instructions so far have made."""

    root: Path
    context: Path
    rules: str
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: int = 0
    command: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def enter(self) -> None:
        """This process goes into the image, for good."""
        os.chroot(self.root)
        os.chdir(self.workdir)
        os.setgroups([])
        os.setgid(self.user)
        os.setuid(self.user)
        assert self.user == 0 or os.getresuid() == (self.user,) * 3

    def expand(self, text: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self.env.get(found[1], self.args.get(found[1], "")), text)

    def do(self, name: str, rest: str) -> None:
        if name == "FROM":
            self.env["PATH"] = f"{BASE}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.system()
        elif name == "ARG":
            key, _, value = rest.partition("=")
            self.args[key] = "".join(shlex.split(value))
        elif name == "ENV":
            self.env |= {
                key: self.expand(value) for key, _, value in (pair.partition("=") for pair in shlex.split(rest))
            }
        elif name == "USER":
            users = [
                line.split(":") for line in (self.root / "etc" / "passwd").read_text(encoding="utf-8").splitlines()
            ]
            self.user = next(int(number) for user, _, number, *_ in users if rest in (user, number))
        elif name == "WORKDIR":
            self.workdir = rest
            self.inside(".").mkdir(parents=True, exist_ok=True)  # root's, where it is not there yet
        elif name == "COPY":
            self.copy(shlex.split(rest))
        elif name == "RUN":
            command = (
                FROM_HERE.get(rest, rest).format(packages=sysconfig.get_path("purelib")) if rest in FROM_HERE else rest
            )
            subprocess.run(["/bin/sh", "-c", command], env=self.args | self.env, preexec_fn=self.enter, check=True)
        elif name == "VOLUME":
            for path in json.loads(rest):
                assert (self.root / path.lstrip("/")).is_dir(), f"{path} would be root's"
        elif name == "CMD":
            self.command = json.loads(rest)
        else:
            assert name in ("EXPOSE", "STOPSIGNAL", "HEALTHCHECK"), f"{name} is not known here"

    def copy(self, words: list[str]) -> None:
        options = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        assert options == ["--chown=user:user"]
        for source in sources:
            start = self.context / source
            found = sorted(start.rglob("*")) if start.is_dir() else [start]
            for path in found:
                if path.is_dir() or ignored(self.rules, path.relative_to(self.context).as_posix()):
                    continue
                to = self.inside(target) / (path.relative_to(start) if start.is_dir() else path.name)
                new = [folder for folder in to.parents if not folder.exists()]
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)
                for made in [to, *new]:
                    os.chown(made, 1000, 1000)
            assert self.inside(target).exists(), f"nothing was copied of {source}"

    def system(self) -> None:
        """The base image."""
        for name in SYSTEM:
            there = Path("/") / name
            if there.is_symlink():
                (self.root / name).symlink_to(os.readlink(there))
            elif there.is_dir():
                self.mount(there)
        for prefix in {Path(sys.base_prefix), Path(sys.prefix)}:
            if not prefix.is_relative_to("/usr"):
                self.mount(prefix)
        (self.root / "dev").mkdir(exist_ok=True)
        subprocess.run(["mount", "--rbind", "/dev", self.root / "dev"], check=True)
        (self.root / "proc").mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "proc", "proc", self.root / "proc"], check=True)
        (self.root / "tmp").mkdir(exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        (self.root / "home").mkdir(exist_ok=True)
        etc = self.root / "etc"
        (etc / "default").mkdir(parents=True)
        (etc / "skel").mkdir()
        (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
        (etc / "group").write_text("root:x:0:\n", encoding="utf-8")
        (etc / "hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
        for name in ("ld.so.cache", "login.defs", "nsswitch.conf"):
            if Path("/etc", name).exists():
                shutil.copy2(Path("/etc", name), etc)
        base = self.root / BASE.lstrip("/")
        base.mkdir(parents=True)
        (base / "python").symlink_to(sys.executable)

    def mount(self, there: Path) -> None:
        here = self.root / str(there).lstrip("/")
        here.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--rbind", there, here], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", here], check=True)


def main(dockerfile: Path, root: Path, given: Mapping[str, str]) -> None:
    image = Image(root, dockerfile.parent, (dockerfile.parent / ".dockerignore").read_text(encoding="utf-8"))
    for name, rest in instructions(dockerfile.read_text(encoding="utf-8")):
        image.do(name, rest)
    image.env |= given
    (root / "built").touch()  # what is newer, the command has written
    image.enter()
    os.execvpe(image.command[0], image.command, image.env)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), dict(pair.split("=", 1) for pair in sys.argv[3:]))
