#!/usr/bin/env bash
# Make .venv with the exact versions of constraints.txt, once; install.sh dev adds the tools of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:+[$1]}
mark=.venv/.installed${1:+-$1}
if [ ! -e "$mark" ] || [ pyproject.toml -nt "$mark" ] || [ constraints.txt -nt "$mark" ]; then
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  # a third of the time is compiling what is never imported; what is, is compiled when it first is, if that may be kept
  later=$([ -n "${PYTHONDONTWRITEBYTECODE:-}" ] || echo --no-compile)
  .venv/bin/python -m pip install --quiet --disable-pip-version-check $later -c constraints.txt -e ".$extra"
  touch "$mark"
fi
