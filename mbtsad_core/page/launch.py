"""Start the page on a web server: its options, the files that it serves itself, and the kind of hosting."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbtsad_core.config import JobsConfig, RuntimeConfig, SandboxConfig, SandboxesConfig, UploadConfig
from mbtsad_core.errors import BadConfig, MBTSADError
from mbtsad_core.flags import add_settings, read_settings
from mbtsad_core.service.faults import INTERNAL, fault_words, keep
from mbtsad_core.sources import DEMO
from mbtsad_core.terminal import INTERRUPTED

if TYPE_CHECKING:
    from mbtsad_core.page.site import Site
    from mbtsad_core.service.runner import Runner

PORT = 7860
# Seconds between two looks of Gradio's queue for what visitors ask, and for progress to tell. Its own 0.001 and 0.01
# take 3 % of a core while nobody is there.
PAUSE = 0.02
SLICE = 50.0  # seconds of a job that one call of a lent GPU does; the host's limit is 60
JOB_FILES = {
    "model.zip": "application/zip",
    "report.html": "text/html",
    "report.json": "application/json",
    "report.sarif": "application/sarif+json",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python app.py", description="The page: see a backdoor, watch it fall, take the purified model home."
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on; 0.0.0.0 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=int(os.environ.get("GRADIO_SERVER_PORT", PORT)),
        help="port to listen on (default: %(default)s)",
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="a public link through Gradio's tunnel; whoever has it can use this machine",
    )
    parser.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        action="append",
        help="ask visitors for a name and a password; can be repeated",
    )
    parser.add_argument(
        "--jobs",
        metavar="DIR",
        type=Path,
        default=default_jobs(),
        help="directory of jobs and uploads (default: %(default)s)",
    )
    add_settings(parser, JobsConfig(), "jobs: queue, quotas, limits")
    add_settings(parser, UploadConfig(), "uploads")
    add_settings(
        parser, SandboxesConfig(), "sandboxes: of a visitor's model when it is first opened (check), and of a run"
    )
    add_settings(parser, RuntimeConfig(), "machine", but=["--threads"])
    return parser


def default_jobs() -> Path:
    """$MBTSAD_JOBS, or a folder of the user's own state: neither a temporary folder nor the working directory."""
    given = os.environ.get("MBTSAD_JOBS")
    return (
        Path(given) if given else Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "mbtsad"
    )


def zero_gpu() -> Callable[..., Any] | None:
    """The decorator that lends a GPU for a call, on a host of that kind; None elsewhere."""
    if os.environ.get("SPACES_ZERO_GPU", "").lower() not in ("1", "t", "true"):  # as the package reads it
        return None
    try:
        import spaces
    except ImportError as error:
        raise MBTSADError(
            "This host lends GPUs to calls, which needs the package spaces. Add it to requirements.txt."
        ) from error
    return spaces.GPU  # type: ignore[no-any-return]


def make_runner(root: Path, config: JobsConfig, sandbox: SandboxConfig = SandboxesConfig().run) -> Runner:
    """Jobs in child processes, or, where a GPU is lent for a call at a time, in the visitor's call."""
    from mbtsad_core.service.runner import AttachedRunner, DetachedRunner

    if lend := zero_gpu():
        os.environ["TOKENIZERS_PARALLELISM"] = (
            "false"  # a fork has none of the tokenizers' threads, and would wait for them for ever
        )
        return AttachedRunner(root, config, seconds=SLICE, around=lambda slice: lend(duration=60)(slice))
    return DetachedRunner(root, config, sandbox)


def routes(site: Site) -> list[Any]:
    """What the app serves besides Gradio's own: plotly's script, and the files of finished jobs by their secret ids."""
    import plotly
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response
    from starlette.routing import Route

    from mbtsad_core.page.components import PLOTLY_ROUTE
    from mbtsad_core.page.first_look import CHECKOUT, DOCUMENTS, DOCUMENTS_ROUTE
    from mbtsad_core.page.take_away import JOBS_ROUTE, report_file
    from mbtsad_core.service.run_folder import model_zip
    from mbtsad_core.service.store import State

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    strict = {
        "Content-Security-Policy": "sandbox allow-scripts",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }

    def plotly_script(request: Request) -> Response:
        return FileResponse(script, media_type="text/javascript", headers={"Cache-Control": "public, max-age=86400"})

    def job_file(request: Request) -> Response:
        name, asked = request.path_params["name"], request.query_params
        ids = [id for id in asked.get("compared", "").split(",") if id]
        try:
            if name not in JOB_FILES or site.runner.status(request.path_params["id"]).state is not State.DONE:
                raise FileNotFoundError
            out = site.runner.output(request.path_params["id"])
            text = None if name == "model.zip" else report_file(site, out, name, ids, asked.get("scan", ""))
            if text is not None:
                named = {"Content-Disposition": f'attachment; filename="mbtsad-{name}"'}
                return Response(text, media_type=JOB_FILES[name], headers=strict | named)
            path = model_zip(out) if name == "model.zip" else out / name
            if not path.is_file():
                raise FileNotFoundError
            return FileResponse(path, media_type=JOB_FILES[name], filename=f"mbtsad-{name}", headers=strict)
        except (MBTSADError, FileNotFoundError):
            return PlainTextResponse(
                "There is no such file. Results are kept for a limited time after a run.", status_code=404
            )

    def document(request: Request) -> Response:
        path = CHECKOUT / request.path_params["name"]
        if path.name not in DOCUMENTS.values() or not path.is_file():
            return PlainTextResponse("There is no such document here.", status_code=404)
        return FileResponse(path, media_type="text/plain; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})

    return [Route(PLOTLY_ROUTE, plotly_script), Route(JOBS_ROUTE, job_file), Route(DOCUMENTS_ROUTE, document)]


def main(argv: Sequence[str] | None = None) -> int:
    """`serve`; what goes wrong is said in a sentence, with the exit codes of the command line."""
    try:
        return serve(argv)
    except MBTSADError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a port that is taken, a folder that cannot be written to
        print(
            f"app.py: The page could not be served: {str(error).rstrip(chr(46))}. Check --host, --port and --jobs.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:  # before the page is up; afterwards Gradio waits for it
        print("app.py: stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        print(f"app.py: {fault_words(error, keep(error, 'app.py'))}", file=sys.stderr)
        return INTERNAL


def serve(argv: Sequence[str] | None = None) -> int:
    """Build the page and serve it until it is stopped."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        config, uploads, sandboxes, runtime = (
            read_settings(args, kind) for kind in (JobsConfig(), UploadConfig(), SandboxesConfig(), RuntimeConfig())
        )
        runtime = dataclasses.replace(runtime, threads=None)  # --threads is for the jobs
        auth = [_credentials(given) for given in args.auth] if args.auth else None
    except BadConfig as error:
        parser.error(str(error))
    try_port(args.host, args.port)
    root = args.jobs.expanduser().absolute()
    _set_environment(root)
    gc.disable()  # until all is loaded, see `warm_up`

    from mbtsad_core.page.site import Site

    if threading.current_thread() is threading.main_thread():
        # `docker stop` is like Ctrl-C: the runs stop at a checkpoint
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = make_runner(root, config, sandboxes.run)
    site = Site(root, runner, config, runtime, uploads, sandboxes.check)
    try:
        _launch(site, server_name=args.host, server_port=args.port, share=args.share, auth=auth)
    finally:
        runner.close()
    return 0


def try_port(host: str, port: int) -> None:
    """Raise OSError where the port cannot be had, before a page is built for it."""
    try:
        family, kind, protocol, _, (address, _, *scope) = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a server that has just ended
            tried.bind((address, port, *scope))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise OSError(f"port {port} of {host} cannot be had ({why})") from error


def _set_environment(root: Path) -> None:
    """What Gradio and the Hub's client read as they are imported."""
    # Uploads on their way; never a place that others can read
    os.environ.setdefault("GRADIO_TEMP_DIR", str(root / "received"))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # It keeps what is typed in the browser, and lists a local visitor the host's own buckets on the Hub
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")  # no visitor reads the host's private models and data


def _launch(site: Site, **where: Any) -> None:
    from mbtsad_core.page.demo_run import make_demo_run
    from mbtsad_core.page.first_paint import FIRST_PAINT
    from mbtsad_core.page.limits import middleware
    from mbtsad_core.page.page import build_page
    from mbtsad_core.page.site import UPLOADS
    from mbtsad_core.page.theme import CSS, PAGE_SCRIPT, theme

    if site.config.demo_run:
        make_demo_run(site)
    page, megabytes = build_page(site), site.uploads.megabytes
    if site.runner.detached:
        threading.Thread(target=warm_up, args=(site,), name="warm-up", daemon=True).start()
    else:
        # Jobs run in forks here, and one that is made while a thread imports something waits for that import for ever
        warm_up(site)
    page.queue(max_size=max(64, 4 * site.config.queue_size), default_concurrency_limit=8, api_open=True)
    page._queue.sleep_when_free = page._queue.progress_update_sleep_when_free = PAUSE
    page.launch(
        **where,
        max_file_size=f"{megabytes}mb",
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=True,
        footer_links=["api"],
        theme=theme(),
        # Gradio's own way for styles loses container queries
        head=f"<style>{CSS}</style><script>{PAGE_SCRIPT}</script>",
        app_kwargs={
            "routes": routes(site),
            "middleware": [
                *middleware(site.root / UPLOADS, Path(os.environ["GRADIO_TEMP_DIR"]), megabytes),
                *FIRST_PAINT,
            ],
        },
        quiet=False,
    )


def warm_up(site: Site) -> None:
    """Load what the first visitor would wait for: the demo suspect, and UMAP's compiled parts. What fails here fails
    again where it is told."""
    import plotly.subplots  # noqa: F401

    from mbtsad_core.evaluation import embeddings

    with contextlib.suppress(Exception):
        site.model(DEMO)
        embeddings.warm_up()
    gc.freeze()  # no visitor waits while Python looks through the libraries for garbage
    gc.enable()


def _credentials(given: str) -> tuple[str, str]:
    user, colon, password = given.partition(":")
    if not (user and colon and password):
        raise BadConfig("--auth: expected USER:PASSWORD.")
    return user, password
