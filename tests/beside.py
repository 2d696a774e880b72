"""How long this version takes beside an older one: the same commands in turns on one machine.

    git worktree add ../older f187ef9
    python tests/beside.py ../older --out beside.jsonl
    python tests/beside.py ../older --out beside.jsonl --only minilm --suspect DIR --clean clean.tsv --test test.tsv \\
        --trigger cf --target 1

Each repeat has a seed of its own. Lines of --out become a table; what stands there is not measured again. Both versions
run in this Python's environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parents[1]
CLI = ("-m", "mbtsad_core.cli")
BUSY = "while True: pass"
FILES = ("suspect", "clean", "test", "trigger", "target")


def commands(asked: argparse.Namespace, seed: int, out: Path) -> dict[str, list[str]]:
    """What is timed, by its name; a name with "busy" runs beside a process that takes all of a core that it gets."""
    own = [word for name in FILES if (given := getattr(asked, name)) for word in (f"--{name}", given)]
    purify = [*CLI, "purify", "--seed", str(seed), "--out", str(out / "run"), "--json"]
    all_of_them = {
        "import": ["-c", "import mbtsad_core"],
        "help": [*CLI, "--help"],
        "vet": [*CLI, "vet", "assets/demo/suspect"],
        "demo": purify,
        "demo-busy": purify,
        "minilm": [*purify, *own],
        "minilm-busy": [*purify, *own],
    }
    return {name: all_of_them[name] for name in asked.only}


def timed(tree: Path, command: list[str]) -> dict[str, Any]:
    """Seconds, core-seconds and peak memory in MB of a command, and the scores that it printed, if any."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(tree)},
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} in {tree} ended with {process.returncode}"
    measured = {
        "s": time.monotonic() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss / 1024,
    }
    return measured | _scores(said)


def _scores(said: bytes) -> dict[str, Any]:
    """CACC and ASR of the purified model."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        after = json.loads(said)["purified"]
        return {name: after[name] for name in ("cacc", "asr") if after[name] is not None}
    return {}


@contextlib.contextmanager
def neighbor(busy: bool) -> Iterator[None]:
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Medians of both versions and the ratios of these."""
    yield "| what | repeats | older: s | core-s | MB | CACC, ASR | this: s | core-s | MB | CACC, ASR | ratio of s | core-s | MB |"
    yield "|" + "---|" * 13
    for name in dict.fromkeys(row["what"] for row in rows):
        by = {v: [row for row in rows if row["what"] == name and row["version"] == v] for v in ("older", "this")}
        if not all(by.values()):
            continue
        keys = ("s", "cpu_s", "memory_mb")
        middle = {v: [median(row[key] for row in by[v]) for key in keys] for v in by}
        scores = {v: ", ".join(_mean(by[v], key) for key in ("cacc", "asr") if key in by[v][0]) for v in by}
        cells = [c for v in by for c in (*(f"{x:.3g}" if x < 100 else f"{x:.0f}" for x in middle[v]), scores[v])]
        ratios = [f"{new / old:.2f}" for old, new in zip(middle["older"], middle["this"], strict=True)]
        yield f"| {name} | {min(map(len, by.values()))} | {' | '.join(cells)} | {' | '.join(ratios)} |"


def _mean(rows: list[dict[str, Any]], key: str) -> str:
    values = [100 * row[key] for row in rows]
    mean = sum(values) / len(values)
    spread = (sum((x - mean) ** 2 for x in values) / max(1, len(values) - 1)) ** 0.5
    return f"{mean:.1f} ± {spread:.1f}"


def main() -> None:
    names = ["import", "help", "vet", "demo", "demo-busy", "minilm", "minilm-busy"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("older", type=Path, help="a tree of the older version")
    parser.add_argument("--out", type=Path, default=Path("beside.jsonl"), help="lines of what was measured")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=names, default=names[:5], help="default: all that need no files")
    for name in FILES:
        parser.add_argument(f"--{name}", default="", help="for minilm, as `mbtsad purify` takes it")
    asked = parser.parse_args()
    versions = {"older": asked.older.absolute(), "this": HERE}
    for repeat in range(asked.repeats):
        for name in asked.only:
            for version, tree in versions.items():
                rows = _read(asked.out)
                if any((r["what"], r["version"], r["repeat"]) == (name, version, repeat) for r in rows):
                    continue
                with tempfile.TemporaryDirectory() as folder, neighbor("busy" in name):
                    measured = timed(tree, commands(asked, repeat, Path(folder))[name])
                row = {"what": name, "version": version, "repeat": repeat, "load": os.getloadavg()[0], **measured}
                with asked.out.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")
    print(*table(_read(asked.out)), sep="\n")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
