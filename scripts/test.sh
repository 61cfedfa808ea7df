#!/usr/bin/env bash
# All tests and checks: style, types, direction of imports, doctests, tests. Options go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh dev
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/mypy
$bin/lint-imports --no-cache
$bin/python -m pytest "$@"
