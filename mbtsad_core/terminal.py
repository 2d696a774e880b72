"""What the project's programs share in a terminal: commands, exit codes, errors in words, a progress bar.

Exit codes: 0 done, 1 the run failed, 2 bad input, 70 a fault of this program, 130 stopped by Ctrl-C. A command may be
started as several processes, by `accelerate launch`, where it says so. The first speaks, writes and has these codes;
the others end with 0 where all come to an end together, whichever it is: a launcher that saw one of them fail would cut
off what the first still writes.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import difflib
import gc
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.errors import BadConfig, BadOutput, Cancelled, Diverged, MBTSADError
from mbtsad_core.flags import with_flags
from mbtsad_core.steps import drain

if TYPE_CHECKING:
    from mbtsad_core.types import Event, Steps, T

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
SECONDS_BETWEEN_LINES = 5  # of progress, where there is no terminal to draw a bar on

Look = Callable[["Event | None"], None]


@dataclass(frozen=True)
class Command:
    """A command of a program: its line in the list of commands, its flags, and what it does, whose docstring is its
    description. `several` processes may run it together."""

    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    several: bool = False


def parsers_of(
    program: str, about: str, commands: Mapping[str, Command]
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """A program's command line, and those of its commands."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--version", action="version", version=f"{program} {version_here()}")
    known = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        command.add(known.add_parser(name, help=command.help, description=command.run.__doc__))
    return parser, known.choices


def _read(
    parser: argparse.ArgumentParser, own: Mapping[str, argparse.ArgumentParser], argv: Sequence[str] | None
) -> argparse.Namespace:
    """What was asked for. An argument that the command does not know is told with the command's own usage, and with
    flags that are written nearly so."""
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command = own[args.command]
        flags = re.findall(r"--[a-z][a-z-]*", command.format_help())
        near = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=3)
        meant = f". Near it: {', '.join(near)}." if near else ""
        command.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    return args


def version_here() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mbtsad")
    except PackageNotFoundError:
        return "(not installed)"


@contextlib.contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Python looks for garbage seldom here, and not as it ends: the libraries make half a million objects, which it
    looks through again and again as they are imported."""
    before = gc.get_threshold()
    gc.set_threshold(500_000)
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_collecting_seldom()
def run_program(program: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run the command that is asked for, and return the exit code; no error ends in a traceback."""
    try:
        args = _read(*parsers_of(program, about, commands), argv)
    except MBTSADError as error:
        return _fail(program, error, BAD_INPUT)
    command = commands[args.command]
    try:
        if not command.several:
            _check_processes(program, args.command)
        code = command.run(args)
        sys.stdout.flush()
        return _end_together(program, code)
    except Diverged as error:
        return _end_together(program, FAILED, error)
    except Cancelled as error:
        return _end_together(program, INTERRUPTED, error)
    except (MBTSADError, BadOutput) as error:
        return _fail(program, error, BAD_INPUT)
    except BrokenPipeError:  # who read standard output has left
        # Else Python complains when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a full disk, a file that went away
        what = f"A file could not be read or written: {error}. Check its place and the free space there."
        return _fail(program, f"{what}{_go_on(args)}", FAILED)
    except KeyboardInterrupt:
        return _fail(program, "stopped.", INTERRUPTED)
    except Exception as error:  # of a library, of the machine, or ours: no traceback tells a user what to do
        return _fault(program, error, args)


# ---------------------------------------------------------------- how a command ends


def _fail(program: str, error: object, code: int) -> int:
    print(f"{program}: {with_flags(error)}", file=sys.stderr)
    return code


def _fault(program: str, error: Exception, args: argparse.Namespace) -> int:
    """The exit code of an error that was not foreseen, which is told by its number."""
    from mbtsad_core.service.faults import INTERNAL, fault_words, keep
    from mbtsad_core.training.batch_gradient import lacks_memory

    if lacks_memory(error):
        remedy = "Use a smaller --max-length, a smaller model, or a machine with more."
        return _fail(program, f"The machine has not enough memory for this. {remedy}{_go_on(args)}", FAILED)
    told = fault_words(error, keep(error, f"{program} {args.command}"))
    return _fail(program, f"{told}{_go_on(args)}", INTERNAL)


def _go_on(args: argparse.Namespace) -> str:
    """How to go on with a purification that failed and left a run behind."""
    out = getattr(args, "resume", None) or getattr(args, "out", None)
    left = out and (Path(out) / "run.json").is_file()
    return f" Then go on with: mbtsad purify --resume {shlex.quote(str(out))}" if left else ""


# ---------------------------------------------------------------- several processes


def is_first() -> bool:
    """Whether this process is the one, of those that were started together, that speaks and writes."""
    if "LOCAL_RANK" not in os.environ:  # no launcher: PyTorch is not loaded to say so
        return True
    from mbtsad_core.training.several_processes import this_of_all

    return this_of_all()[0] == 0


def _check_processes(program: str, command: str) -> None:
    """Raise BadConfig where several processes were started for what one does."""
    if "LOCAL_RANK" not in os.environ:
        return
    from mbtsad_core.training.several_processes import this_of_all

    if (number := this_of_all()[1]) > 1:
        raise BadConfig(
            f"{number} processes were started for {program} {command}, which one does. Start it without accelerate "
            "launch or torchrun."
        )


def _end_together(program: str, code: int, error: Exception | None = None) -> int:
    """The exit code at an end that all processes come to."""
    if "LOCAL_RANK" in os.environ:
        from mbtsad_core.training.several_processes import leave

        leave()
    if not is_first():
        return DONE
    return _fail(program, error, code) if error else code


# ---------------------------------------------------------------- progress


def follow(steps: Steps[T], *, quiet: bool = False, advice: str = "Nothing was kept.") -> T:
    """Run long work to its end with a progress bar on standard error, and return its result.

    Ctrl-C stops it between two steps, so that what it saves is whole, and says `advice`; a second one ends the process
    at once. Of several processes, each with the same steps, the first draws the bar, and all stop where any got the
    Ctrl-C.
    """
    from mbtsad_core.training.several_processes import in_any

    show: Look = (lambda event: None) if quiet or not is_first() else progress()
    with interruptible() as stopping:

        def look(event: Event) -> None:
            show(event)
            if in_any(stopping()):
                raise Cancelled(f"Stopped in {event.stage} at step {event.step} of {event.total}. {advice}")

        try:
            return drain(steps, look)
        finally:
            show(None)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second one ends the process at once."""
    stopping = False

    def stop(signum: int, frame: Any) -> None:
        nonlocal stopping
        stopping = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopping
    finally:
        signal.signal(signal.SIGINT, before)


def progress() -> Look:
    """A bar a stage where standard error is a terminal, else a line now and then; None ends it."""
    from rich.console import Console

    console = Console(stderr=True)
    return _bars(console) if console.is_terminal else _lines()


def _figures(latest: Mapping[str, float], leading: str) -> str:
    shown = [f"loss {latest['loss']:.3f}"] if "loss" in latest else []
    shown += [f"{name.upper()} {100 * latest[name]:.1f} %" for name in ("cacc", "asr") if name in latest]
    shown += [f"threads {latest['threads']:.0f}"] if "threads" in latest else []
    return "  ".join([*shown, f"in the lead: {leading}"] if leading else shown)


def _leading(event: Event) -> str:
    """What is in the lead of a scan."""
    from mbtsad_core.vetting.file_policy import printable

    best = next(iter(getattr(event, "leading", ())), None)
    return printable(f"{best.text!r} in texts of {best.label}") if best else ""


def _lines() -> Look:
    from mbtsad_core.views.words import duration

    latest: dict[str, float] = {}
    stage, began, printed = "", 0.0, 0.0

    def line(event: Event | None) -> None:
        nonlocal stage, began, printed
        if event is None:
            return
        latest.update(event.metrics)
        now = time.monotonic()
        if event.stage != stage:
            stage, began, printed = event.stage, now, 0.0
        if now - printed < SECONDS_BETWEEN_LINES and event.step != event.total:
            return
        printed, each = now, (now - began) / max(1, event.step - 1)
        left = f"{duration(each * (event.total - event.step))} left" if event.step > 1 else ""
        told = f"{event.stage} {event.step}/{event.total}  {_figures(latest, _leading(event))}  {left}"
        print(told.rstrip(), file=sys.stderr, flush=True)

    return line


def _bars(console: Any) -> Look:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        *(TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[figures]}")),
    )
    bars = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}
    latest: dict[str, float] = {}
    bars.start()

    def draw(event: Event | None) -> None:
        if event is None:
            bars.stop()
            return
        latest.update(event.metrics)
        if event.stage not in tasks:
            tasks[event.stage] = bars.add_task(event.stage, total=event.total, figures="")
        bars.update(tasks[event.stage], completed=event.step, figures=_figures(latest, _leading(event)))

    return draw
