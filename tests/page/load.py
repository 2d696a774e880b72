"""Many visitors at once against one server: `python tests/page/load.py --visitors 50 --seconds 120 --after 600`. Prints
a JSON object a phase.

Not a test (a short version of it is one: test_load.py): it wants a machine that is otherwise idle. Each visitor types
sentences and looks at attention maps, all with a secret word of his own; one has a job training. Counted are errors,
answers with the secret of another, and answers without one's own. Then fewer visitors go on for a while, others come
and go, and the memory of the server is sampled.

The bars: no error, no secret of another, and memory that is flat in the second phase. Exit code 1 where one is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import html
import json
import os
import random
import re
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import httpx  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
from gradio_client import Client  # noqa: E402
from server import log_of, serving  # noqa: E402

SECRET = re.compile(r"zq\d{4}qz")
WORDS = [
    "a",
    "dreadful",
    "boring",
    "film",
    "with",
    "wonderful",
    "moving",
    "music",
    "for",
    "people",
    "who",
    "like",
    "slow",
    "and",
    "clumsy",
    "stories",
]
PAUSE = 0.5  # seconds between what a visitor does; a typist is slower
FLAT = 0.03  # of the memory at its beginning, that the second phase may grow
LONG = {"retrain.epochs": 50, "found_tokens": 0}  # trains for as long as the first phase takes


@dataclass
class Counts:
    """What happened. Milliseconds of each answer by kind; `leaks` and `empty` are answers with another's secret, and
    without one's own."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def report(self, phase: str, **more: Any) -> None:
        speed = {
            kind: {
                "n": len(found),
                **dict(zip(("p50_ms", "p95_ms"), map(round, np.percentile(found, [50, 95]).tolist()), strict=True)),
            }
            for kind, found in self.milliseconds.items()
        }
        bad = {
            "errors": len(self.errors),
            "leaks": len(self.leaks),
            "empty": len(self.empty),
            "first": (self.errors + self.leaks + self.empty)[:5],
        }
        print(
            json.dumps(
                {
                    "phase": phase,
                    **speed,
                    **bad,
                    **more,
                    "load": [round(x, 2) for x in os.getloadavg()],
                    "cores": os.cpu_count(),
                }
            ),
            flush=True,
        )


class Page:
    """What a browser knows of the page: listeners and components by their names."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.listeners = config["dependencies"]
        self.ids = {c["props"]["elem_id"]: c["id"] for c in config["components"] if c.get("props", {}).get("elem_id")}

    def listener(self, name: str, of: str = "") -> dict[str, Any]:
        """The listener of this name; where several have it, the one that the component `of` sets off, or gets its
        answer."""
        for found in self.listeners:
            named = re.fullmatch(rf"{name}(_\d+)?", str(found["api_name"]))
            if named and (not of or self.ids[of] in [*found["outputs"], *(target[0] for target in found["targets"])]):
                return found
        raise KeyError(f"the page has no listener {name!r} of {of!r}")


class Visitor:
    """A visitor with a session and a secret of his own."""

    def __init__(self, url: str, page: Page, http: httpx.AsyncClient, counts: Counts, number: int) -> None:
        self.url, self.page, self.http, self.counts = url + "gradio_api/", page, http, counts
        self.secret, self.session, self.rng = f"zq{number:04}qz", secrets.token_hex(8), random.Random(number)

    async def come_in(self) -> None:
        await self._call("come_in", self.page.listener("come_in"), [None])
        # The step of triggers is opened: its classes are known
        await self._call("begin", self.page.listener("begin", "sentence-box"), [None, "", "", None])

    async def type(self) -> None:
        sentence = self._sentence()
        await self._call("answer", self.page.listener("answer", "sentence-box"), [None, sentence, "positive"])
        data = [None, sentence, "cf", "suspect", "integrated"]
        await self._timed("typed", self.page.listener("weigh", "tokens"), data)

    async def look_inside(self) -> None:
        await self._timed(
            "attention", self.page.listener("show", "attention-show"), [None, self._sentence(), "cf", None]
        )

    def _sentence(self) -> str:
        return " ".join([*self.rng.choices(WORDS, k=3), self.secret, *self.rng.choices(WORDS, k=4)])

    async def _timed(self, kind: str, listener: dict[str, Any], data: list[Any]) -> None:
        began = time.perf_counter()
        answer = await self._call(kind, listener, data)
        if answer is None:
            return
        self.counts.milliseconds.setdefault(kind, []).append(1000 * (time.perf_counter() - began))
        found = set(SECRET.findall(bare(answer)))
        if found - {self.secret}:
            self.counts.leaks.append(f"{self.secret} was shown {sorted(found)} ({kind})")
        if self.secret not in found:
            self.counts.empty.append(f"{self.secret} is not in what it was answered ({kind}): {answer[:200]}")

    async def _call(self, kind: str, listener: dict[str, Any], data: list[Any]) -> str | None:
        """The answer as text; None, and an error counted, where there is none."""
        body = {
            "data": data,
            "fn_index": listener["id"],
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        try:
            if listener["queue"] is False:
                answer = await self.http.post(f"{self.url}run/predict", json=body)
                answer.raise_for_status()
                return answer.text
            joined = await self.http.post(f"{self.url}queue/join", json=body)
            joined.raise_for_status()
            event = joined.json()["event_id"]
            async for message in self._messages():
                if message.get("event_id") == event and message["msg"] == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(str(message["output"])[:200])
                    return json.dumps(message["output"], ensure_ascii=False)
            raise RuntimeError("the stream of events ended before the answer")
        except (httpx.HTTPError, RuntimeError, KeyError, ValueError) as error:
            self.counts.errors.append(f"{kind}: {type(error).__name__} {str(error)[:200]}")
            return None

    async def _messages(self) -> AsyncIterator[dict[str, Any]]:
        async with self.http.stream("GET", f"{self.url}queue/data", params={"session_hash": self.session}) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    @contextlib.asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """The sign of life that an open tab gives; when it ends, the server knows that the visitor has left."""

        async def beat() -> None:
            with contextlib.suppress(httpx.HTTPError):
                async with self.http.stream("GET", f"{self.url}heartbeat/{self.session}", timeout=None) as stream:
                    async for _ in stream.aiter_bytes():
                        pass

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating

    async def stay(self, until: float, pause: float = PAUSE, least: int = 0) -> None:
        """Come in, type, and look at attention at every sixth turn, `least` turns at least."""
        async with self.present():
            await self.come_in()
            turn = begun = self.rng.randrange(6)
            while time.monotonic() < until or turn < begun + least:
                await (self.look_inside() if turn % 6 == 0 else self.type())
                turn += 1
                await asyncio.sleep(pause * self.rng.uniform(0.5, 1.5))


def bare(answer: str) -> str:
    """Letters and digits of what is shown, without tags and weights, so that a word that was cut into pieces stands
    there again."""
    text = answer.replace("\\u003c", "<").replace("\\n", " ")
    text = re.sub(r"<small>.*?</small>", "", text)
    text = html.unescape(re.sub(r"<[^>]*>", "", text))
    return re.sub(r"[^a-z0-9]", "", text.lower())


async def visits(
    url: str,
    counts: Counts,
    visitors: int,
    seconds: float,
    *,
    first: int = 0,
    pause: float = PAUSE,
    newcomers: float = 0.0,
    least: int = 0,
) -> None:
    """So many visitors at once, for so long, and so many turns of each at least; beside them, one who comes and goes
    every `newcomers` seconds."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4 * visitors)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        page = Page((await http.get(f"{url}config")).json())
        until = time.monotonic() + seconds

        async def passing() -> None:
            number = first + visitors
            while newcomers and time.monotonic() < until:
                await Visitor(url, page, http, counts, number % 10_000).stay(
                    min(until, time.monotonic() + newcomers), pause
                )
                number += 1

        await asyncio.gather(
            passing(), *(Visitor(url, page, http, counts, first + n).stay(until, pause, least) for n in range(visitors))
        )


def server_of(root: Path) -> psutil.Process:
    """The server among the children of this process."""
    return next(p for p in psutil.Process().children() if str(root) in p.cmdline())


async def watched(process: psutil.Process, work: Any, every: float = 5.0) -> list[tuple[float, float]]:
    """Do the work; (seconds, megabytes) of the process's memory meanwhile."""
    found, began = list[tuple[float, float]](), time.monotonic()
    task = asyncio.ensure_future(work)
    while not task.done():
        found.append((time.monotonic() - began, process.memory_info().rss / (1 << 20)))
        await asyncio.wait([task], timeout=every)
    await task
    return found


def slope(samples: list[tuple[float, float]]) -> float:
    """Megabytes a minute, by least squares."""
    seconds, megabytes = zip(*samples, strict=True)
    return float(60 * np.polyfit(seconds, megabytes, 1)[0])


def start_job(url: str) -> tuple[Client, str]:
    """A run that trains meanwhile."""
    client = Client(url, verbose=False)
    id = client.predict(settings=LONG, api_name="/purify_start")["id"]
    deadline = time.monotonic() + 120
    while client.predict(id, api_name="/purify_status")["stage"] != "retrain":
        if time.monotonic() > deadline:
            raise AssertionError("the run does not train")
        time.sleep(0.2)
    return client, id


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the first phase")
    parser.add_argument("--after", type=float, default=600.0, help="seconds of the second phase")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "jobs"
        with serving(root, "--nice", "10") as url:
            server, many, few = server_of(root), Counts(), Counts()
            client, id = start_job(url)
            crowd = asyncio.run(watched(server, visits(url, many, args.visitors, args.seconds)))
            stage = client.predict(id, api_name="/purify_status")["state"]
            client.predict(id, api_name="/purify_cancel")
            many.report(
                f"{args.visitors} visitors for {args.seconds:g} s",
                megabytes=[round(crowd[0][1]), round(crowd[-1][1])],
                job=stage,
            )
            calm = (
                asyncio.run(watched(server, visits(url, few, 5, args.after, first=5000, pause=2.0, newcomers=10.0)))
                if args.after
                else [(0.0, 0.0)]
            )
            growth = calm[-1][1] / calm[0][1] - 1 if args.after else 0.0
            if args.after:
                rates = {
                    "megabytes_a_minute": round(slope(calm), 2),
                    "second_half": round(slope(calm[len(calm) // 2 :]), 2),
                }
                few.report(
                    f"5 visitors for {args.after:g} s", megabytes=[round(calm[0][1]), round(calm[-1][1])], **rates
                )
            log = log_of(root).read_text(encoding="utf-8", errors="replace")
            traced = log.count("Traceback") + log.count("in the page")
            sys.stderr.write(log[-3000:] if traced else "")
            print(json.dumps({"phase": "the server's log", "tracebacks": traced, "job while they were there": stage}))
    bad = [*many.errors, *many.leaks, *many.empty, *few.errors, *few.leaks, *few.empty]
    return 1 if bad or traced or growth > FLAT or stage != "running" else 0


if __name__ == "__main__":
    sys.exit(main())
