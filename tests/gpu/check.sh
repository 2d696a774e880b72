#!/usr/bin/env bash
# What is to be seen on a machine with a GPU, in ten minutes at most: tests/gpu/check.sh [FOLDER]
# Each step's figures stand in FOLDER (gpu-check) once it is done, and it is not done again; one table at the end.
# Without a GPU the same steps run in tiny sizes on the CPU, the kernels in Triton's interpreter.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-gpu-check}
mkdir -p "$out"
python=${PYTHON:-python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || export TRITON_INTERPRET=1
failed=0
for step in tests numbers cure long; do
  [ -s "$out/$step.json" ] && continue
  if timeout $((SECONDS < 580 ? 590 - SECONDS : 10)) "$python" tests/gpu/check.py "$step" >"$out/part" 2>"$out/$step.log"; then
    mv "$out/part" "$out/$step.json"
  else
    echo "$step failed or took too long: $(tail -n 1 "$out/$step.log")" >&2
    failed=1
  fi
done
"$python" tests/gpu/check.py table "$out" || failed=1
exit $failed
