#!/usr/bin/env bash
# An offline page of plotly carries a button that sends the figure, with all hover texts, to a server of its maker.
#
# plotly 7.1.0. fig.to_html(include_plotlyjs=True), the way to a page that needs no network, has the button in its bar of tools: the bundled plotly.js has showSendToCloud
# true and plotlyServerURL a cloud's address by default, and the Python side sets neither. In plotly 6.7.0 the default is false. config={"showSendToCloud": False} removes it.
#
# A decision of plotly.js (pull request 7909); plotly.py's pull request 1628 had promised pages without any way to share by default.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check plotly==7.1.0
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import re
import subprocess

import plotly
import plotly.graph_objects as go

page = go.Figure(go.Scatter(x=[1], y=[1], text=["a private text"])).to_html(include_plotlyjs=True)
default = re.compile(r'showSendToCloud:\{valType:"boolean",dflt:!([01])\}')
server = re.compile(r'plotlyServerURL:\{valType:"string",dflt:"([^"]*)"\}')
told("7.1.0: button shown by default", default.findall(page), ["0"])  # !0 is true
told("7.1.0: a server by default", [bool(url) for url in server.findall(page)], [True])
told("7.1.0: config of the page", re.findall(r'\{"responsive": true\}', page), ['{"responsive": true}'])
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", "before", "plotly==6.7.0"], check=True)
code = "import plotly.offline as o; print(o.get_plotlyjs())"
bundle = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "before"}, capture_output=True, text=True, check=True).stdout
told("6.7.0: button shown by default", default.findall(bundle), ["1"])
PY
