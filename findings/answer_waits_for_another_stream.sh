#!/usr/bin/env bash
# What is asked of Gradio after the server has ended its stream of answers, and before the client knows, is computed and not answered: the answer waits until another question opens the next stream.
#
# gradio 6.31.0, gradio-client 2.7.2, and @gradio/client 2.7.0 from npm. The server ends a session's stream with the message close_stream once nothing is pending, and the client opens one only where
# it believes that none is open. A relay holds back this message alone, for two seconds; B is asked when A is answered. The client opens no stream for B, and closes the old one when the message comes.
# No error is told, and B comes with the answer to C, whenever C is asked. Where nothing is held back B comes at once. Python's client raises a CancelledError for B, which nobody has cancelled.
# On a page of gradio, seen with Chromium and not part of this script, it is the second step of a .then that stays without its answer, while its clock runs, until another button is pressed.
#
# Other races of these streams are known (gradio pull requests 7926 and 13760); this one was found in no issue.
set -euo pipefail
command -v node >/dev/null && command -v npm >/dev/null || { echo "This needs node 18 or later and npm."; exit 1; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False GRADIO_TEMP_DIR="$place/temp" npm_config_cache="$place/npm"
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check gradio==6.31.0 gradio-client==2.7.2
cd "$place"
npm install --silent --no-audit --no-fund --prefix "$place" @gradio/client@2.7.0 fetch-event-stream@0.1.6
cat >ask.mjs <<'JS'
import { Client } from "@gradio/client";

const client = await Client.connect(process.argv[2], { events: ["data", "status"] });
const answers = [], errors = [];

async function ask(name) {
  for await (const event of client.submit("/" + name, [])) {
    if (event.type === "data") answers.push(event.data[0]);
    else if (event.stage === "error") errors.push(event.message);
  }
}

const seen = async (seconds) => {
  await new Promise((done) => setTimeout(done, seconds * 1000));
  return answers.join(" ");
};

await ask("A");
ask("B");
const waited = await seen(6);
ask("C");
console.log(JSON.stringify([waited, await seen(6), errors]));
process.exit();
JS
timeout 300 venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import asyncio
import concurrent.futures
import json
import subprocess
import threading
import time
from urllib.parse import urlsplit

import gradio as gr
from gradio_client import Client

computed = {}


def event(name):
    def answer():
        computed[name] = time.monotonic()
        return name

    return answer


with gr.Blocks() as page:
    box, button = gr.Textbox(), gr.Button()
    for name in "ABC":
        button.click(event(name), None, box, api_name=name)
_, url, _ = page.launch(prevent_thread_lock=True, quiet=True)


async def passed(source, sink, late):
    while data := await source.read(1 << 16):
        start, found, end = data.partition(b'{"msg":"close_stream"')
        sink.write(start)
        if found:
            await asyncio.sleep(late)
        sink.write(found + end)
    sink.close()


async def relay(late):
    async def met(source, sink):
        ahead, back = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        await asyncio.gather(passed(source, back, 0), passed(ahead, sink, late), return_exceptions=True)

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


network = asyncio.new_event_loop()
threading.Thread(target=network.run_forever, daemon=True).start()


def through(late):
    return asyncio.run_coroutine_threadsafe(relay(late), network).result()


def in_javascript(late):
    """What has been answered 6 seconds after B was asked, and 6 seconds after C was; the errors."""
    return json.loads(subprocess.run(["node", "ask.mjs", through(late)], stdout=subprocess.PIPE, check=True, timeout=60).stdout)


def in_python(late):
    client, found = Client(through(late), verbose=False), []
    for name in "ABC":
        try:
            found.append(client.submit(api_name="/" + name).result(6))
        except concurrent.futures.CancelledError as error:
            found.append(type(error).__name__)
    return found


told("the end of the stream is told at once", in_javascript(0), ["A B", "A B C", []])
told("it is told late", in_javascript(2), ["A", "A B C", []])
told("and B was computed long before C", computed["C"] - computed["B"] > 4, True)
told("Python's client, told at once", in_python(0), ["A", "B", "C"])
told("Python's client, told late", in_python(2), ["A", "CancelledError", "C"])
told("and B was computed before C", computed["A"] < computed["B"] < computed["C"], True)
page.close(verbose=False)
PY
