#!/usr/bin/env bash
# A result that is a warning is written without its level, and read as an error.
#
# sarif-om 1.0.4, jschema-to-python 1.2.3; read with sarif-tools 3.0.5. The writer leaves out what equals the default in the schema, and that of a result's level is "warning". But by SARIF 2.1.0
# (3.27.10) a result without a level has that of its rule. So Result(level="warning") of a rule whose default is "error" is an error for whoever reads the file, and one of a rule whose
# default is "note" is a note. Notes, errors and "none" keep theirs. No level given at all comes out the same as "warning".
#
# Known before: the same in the C# library, told in DevSkim issue 492 (2023); of the Python one found in no issue.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HF_HOME="$place/hub" HF_HUB_OFFLINE=1
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check sarif-om==1.0.4 jschema-to-python==1.2.3 sarif-tools==3.0.5
cd "$place"
venv/bin/python - <<'PY'
import sys


def told(what, found, seen):
    print(f"{what}: {found!r}")
    if found != seen:
        sys.exit(f"This has changed. Seen before: {seen!r}")


import json
from pathlib import Path

import sarif_om as sarif
from jschema_to_python.to_json import to_json
from sarif.loader import load_sarif_file

levels = ["error", "warning", "note", "none"]
defaults = {"strict": "error", "mild": "note"}
rules = [sarif.ReportingDescriptor(id=name, default_configuration=sarif.ReportingConfiguration(level=level)) for name, level in defaults.items()]
results = [sarif.Result(message=sarif.Message(text=level), rule_id=name, level=level) for name in defaults for level in levels]
tool = sarif.Tool(driver=sarif.ToolComponent(name="tool", rules=rules))
Path("log.sarif").write_text(to_json(sarif.SarifLog(version="2.1.0", runs=[sarif.Run(tool=tool, results=results)])))
told("given", [result.level for result in results], levels * 2)
written = json.loads(Path("log.sarif").read_text())["runs"][0]["results"]
told("written", [result.get("level") for result in written], ["error", None, "note", "none"] * 2)
read = {(record["Code"], record["Description"]): record["Severity"] for record in load_sarif_file("log.sarif").get_records()}
told("read, rule of errors", [read["strict", level] for level in levels], ["error", "error", "note", "none"])
told("read, rule of notes", [read["mild", level] for level in levels], ["error", "note", "note", "none"])
PY
