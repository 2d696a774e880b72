"""Imports go one way, the web framework stays in its corner, and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "mbtsad_core"
FILES = [*sorted(PACKAGE.rglob("*.py")), *sorted(ROOT.glob("app.py"))]
LAYERS = (
    ("types", "errors", "sources"),
    ("rates", "steps"),
    ("config",),
    ("methods",),
    ("flags", "publish", "vetting"),
    ("data", "models"),
    ("augment", "scanning", "training"),
    ("attacks", "defenses", "detectors"),
    ("evaluation",),
    ("views",),
    ("service",),
    ("terminal",),
    ("research",),
    ("cli", "page"),
    ("app",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
HEAVY = {
    "torch",
    "transformers",
    "pandas",
    "gradio",
    "plotly",
    "rich",
    "datasets",
    "numpy",
    "pyarrow",
    "nlpaug",
    "umap",
}


def name_of(path: Path) -> str:
    """mbtsad_core/models/demo.py -> mbtsad_core.models.demo"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def running_code(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from running_code(other)
            continue
        yield node
        yield from running_code(node)


def imports(path: Path) -> set[str]:
    """The modules that a file imports when it runs, wherever the import stands."""
    found = set()
    for node in running_code(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def part(module: str) -> str:
    """The part of the package that a module belongs to: mbtsad_core.models.demo -> models."""
    return module.split(".")[1] if "." in module else module


def own(modules: set[str]) -> set[str]:
    return {m for m in modules if m.startswith("mbtsad_core.")}


def reached_from(start: str) -> set[str]:
    """All modules of the package that come along, directly or through others, with the modules of a part."""
    found, new = set[str](), {m for m in MODULES if part(m) == start}
    while new:
        found |= new
        new = {other for m in new for other in own(imports(MODULES[m])) if other in MODULES} - found
    return found


def printed(code: str) -> list[str]:
    """The lines that a new process prints while it runs some code, and one of the top-level modules that are loaded
    after it."""
    program = f"import sys\n{code}\nprint('loaded', *sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def modules_after(code: str) -> set[str]:
    """The top-level modules that are loaded in a new process after some code."""
    return set(printed(code)[-1].split()[1:])


# ---------------------------------------------------------------- imports go one way


def test_every_module_has_its_layer() -> None:
    assert {part(m) for m in MODULES} - {"mbtsad_core"} <= RANK.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_from_layers_below_its_own(module: str) -> None:
    here = part(module)
    if here == "mbtsad_core":  # the package itself imports nothing of its own before it is used
        assert own(imports(MODULES[module])) == set()
        return
    for other in sorted(own(imports(MODULES[module]))):
        there = part(other)
        assert there == here or RANK[there] < RANK[here], f"{module} imports {other}"


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {m: own(imports(path)) & MODULES.keys() for m, path in MODULES.items()}
    while leaves := {m for m, needed in graph.items() if not needed}:
        graph = {m: needed - leaves for m, needed in graph.items() if m not in leaves}
    assert graph == {}


def test_the_web_framework_is_imported_by_the_page_alone() -> None:
    users = {m for m, path in MODULES.items() if any(i.partition(".")[0] == "gradio" for i in imports(path))}
    assert {part(m) for m in users} <= {"page", "app"}


# ---------------------------------------------------------------- what a defense cannot know


@pytest.mark.parametrize("family", ["defenses", "detectors"])
def test_a_defense_comes_without_attacks_and_evaluation(family: str) -> None:
    assert {part(m) for m in reached_from(family)} & {"attacks", "evaluation", "research"} == set()


def test_the_defenses_are_there_to_be_checked() -> None:
    assert {"mbtsad_core.defenses.mbtsad", "mbtsad_core.training.distillation", "mbtsad_core.types"} <= reached_from(
        "defenses"
    )


@pytest.mark.parametrize(
    "module", sorted(m for m in MODULES if part(m) in ("defenses", "detectors", "training", "augment", "scanning"))
)
def test_neither_a_defense_nor_what_it_uses_names_a_trigger(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }
    names |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom | ast.Import) for alias in n.names}
    names |= {a.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for a in (*n.args, *n.kwonlyargs)}
    assert {n for n in names if "trigger" in n.lower() or n in ("asr", "Scores")} == set()


# ---------------------------------------------------------------- nothing heavy before it is used (see also
# test_packaging.py)


@pytest.mark.parametrize(
    "arguments",
    [["evaluate", "--help"], ["attack", "ep", "--help"], ["build-demo", "--help"], ["purify", "--no-such-flag"]],
)
def test_help_and_wrong_flags_are_answered_before_anything_heavy_is_imported(arguments: list[str]) -> None:
    code = f"""
from mbtsad_core.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
"""
    loaded = modules_after(code)
    assert "mbtsad_core" in loaded
    assert loaded & HEAVY == set()


def commanded(arguments: Sequence[str | Path]) -> str:
    return f"from mbtsad_core.cli import main\nassert main({[str(a) for a in arguments]!r}) == 0"


def test_a_verdict_needs_no_tables_no_page_and_no_look_for_garbage(saved_tiny: Path) -> None:
    """Through what the libraries make; at its end all of it is left alone."""
    code = "import atexit, gc\natexit.register(lambda: print('frozen', gc.get_freeze_count() > 100_000))\nfound = "
    code += "gc.get_stats()[2]['collections']\n" + commanded(["vet", saved_tiny])
    code += "\nassert gc.get_stats()[2]['collections'] == found\nassert gc.get_threshold()[0] < 10_000"
    *_, loaded, frozen = printed(code)
    modules = {*loaded.split()[1:]}
    assert "transformers" in modules
    assert modules & HEAVY <= {"torch", "transformers", "numpy", "scipy"}
    assert frozen == "frozen True"


def test_a_measurement_needs_tables_and_no_page(saved_tiny: Path) -> None:
    (texts := saved_tiny / "texts.tsv").write_text("text\tlabel\na good film\tnegative\na bad one\tpositive\n")
    loaded = modules_after(commanded(["evaluate", "--model", saved_tiny, "--test", texts]))
    assert loaded & HEAVY <= {"torch", "transformers", "numpy", "scipy", "pandas", "pyarrow", "rich"}


def test_the_page_looks_for_garbage_once_it_is_warm_and_also_where_that_failed() -> None:
    code = "import gc\nfrom mbtsad_core.page.launch import warm_up\ngc.disable()\nwarm_up(None)\n"
    assert "torch" in modules_after(f"{code}assert gc.isenabled() and gc.get_freeze_count() > 100_000")


# ---------------------------------------------------------------- every file is sound


@pytest.mark.parametrize("module", sorted(m for m in MODULES if part(m) not in ("page", "app")))
def test_every_module_can_be_imported(module: str) -> None:
    if module == "mbtsad_core.training.attention_kernels":
        pytest.importorskip("triton", reason="Triton is not installed: pip install 'mbtsad[gpu]'")
    assert importlib.import_module(module).__name__ == module
