#!/usr/bin/env bash
# Gradio means 404 for the events of a session that it does not know, and sends 200 with a stream that breaks off.
#
# gradio 6.31.0, fastapi 0.165.0, starlette 1.10.0. The route of a session's events raises its 404 inside the stream, when the headers of the answer are out: the client reads
# status 200, one chunk and an incomplete body, and the server logs "Caught handled exception, but response already started". A page that is reloaded while it waits for an
# answer meets it; a client cannot tell a session that is gone from a broken network. A path that does not exist gets its 404.
#
# Known before: the traceback, in gradio issue 9169 (2024), closed for want of a way to bring it about; that the status is 200 was found in no issue.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False GRADIO_TEMP_DIR="$place/temp"
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check gradio==6.31.0 fastapi==0.165.0 starlette==1.10.0
cd "$place"
venv/bin/python - 2>log <<'PY' || { tail -n 3 log; exit 1; }
import http.client
import sys
from urllib.parse import urlsplit


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import gradio as gr

with gr.Blocks() as page:
    box = gr.Textbox()
    box.change(lambda text: text, box, box)
_, url, _ = page.launch(prevent_thread_lock=True, quiet=True)


def asked(path):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    try:
        answer.read()
        return answer.status, "whole"
    except http.client.IncompleteRead:
        return answer.status, "broken off"


told("a path that does not exist", asked("/gradio_api/nothing_here"), (404, "whole"))
told("events of a session that is not known", asked("/gradio_api/queue/data?session_hash=nobody"), (200, "broken off"))
page.close()
PY
grep -m1 "response already started" log || { echo "This has changed: the server's log does not tell of it."; exit 1; }
