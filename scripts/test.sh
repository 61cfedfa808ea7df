#!/usr/bin/env bash
# All checks and tests but the long ones: style, types, direction of imports, doctests, tests. With `--all` first, the long
# ones, too. Options go to pytest, which runs two tests at a time on one thread each: faster than one after the other on
# two, since most tests are small.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE  # many tests start processes, each of which would compile this package again
if [ "${1:-}" = --all ]; then shift; set -- -m "" "$@"; fi
bash scripts/install.sh dev
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
{ $bin/mypy && $bin/lint-imports --no-cache; } &  # while tests wait for what they began
OMP_NUM_THREADS=1 $bin/python -m pytest -n 2 --dist worksteal "$@"
wait $!
