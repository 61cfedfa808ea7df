#!/usr/bin/env bash
# Tests and checks: style, types, direction of imports, doctests, tests. Those that start whole processes and take longest
# are run by `-m slow`, or with all others by `-m ''`. Options go to pytest, which runs two tests
# at a time on one thread each: faster than one after the other on two, since most tests are small.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh dev
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/mypy
$bin/lint-imports --no-cache
OMP_NUM_THREADS=1 $bin/python -m pytest -n 2 "$@"
