#!/usr/bin/env bash
# Building a page of Gradio where no event loop runs opens six event loops, closes none, and puts another one in the place of the caller's own.
#
# gradio 6.31.0. Each lock and each stop event of a gr.Blocks opens a loop of its own with asyncio.new_event_loop and makes it the thread's current one; a lock does not need it. Each loop
# holds three file descriptors until a garbage collection finds it. A loop that the caller made and set is no longer the one that asyncio.get_event_loop gives. Tests that take warnings
# for errors fail later, in a test that has nothing to do with the page: "unclosed event loop", from the collection. Inside a running loop none is opened.
#
# Known before: the change that brought it, gradio pull request 11734 (2025), made against a DeprecationWarning; what it leaves behind was found in no issue.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False GRADIO_TEMP_DIR="$place/temp"
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check gradio==6.31.0
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import asyncio
import gc
import warnings

import gradio as gr

opened, open_one = [], asyncio.new_event_loop
asyncio.new_event_loop = lambda: opened.append(open_one()) or opened[-1]


def page():
    with gr.Blocks() as built:
        box = gr.Textbox()
        box.change(lambda text: text, box, box)
    return built


async def inside():
    page()


own = open_one()
asyncio.set_event_loop(own)
own.run_until_complete(inside())
told("loops opened for a page, inside a running loop", len(opened), 0)
told("the current loop is the caller's own", asyncio.get_event_loop() is own, True)
page()
told("loops opened for a page, elsewhere", len(opened), 6)
told("of these closed", sum(loop.is_closed() for loop in opened), 0)
told("the current loop is the caller's own", asyncio.get_event_loop() is own, False)
own.close()
asyncio.set_event_loop(None)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    opened.clear()
    gc.collect()
told("warnings of unclosed loops at the next collection", sum("unclosed event loop" in str(w.message) for w in said), 6)
PY
