#!/usr/bin/env bash
# Make an environment of the libraries that strategies are compared with, beside .venv's own packages, and compare.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh dev
bench=runs/bench-strategies/env
if [ ! -e "$bench/.installed" ]; then
  .venv/bin/python -m venv "$bench"
  # theirs first, then ours: what they pin too low or too high is left out, and all of them run on our torch and numpy
  .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    > "$("$bench/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
  "$bench/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    baal==2.1.0 structlog batchbald_redux==2.0.5 toma psutil scikit-activeml==1.0.1 makefun \
    decile-distil==0.2.0 apricot-select numba llvmlite tqdm
  touch "$bench/.installed"
fi
PYTHONPATH=$PWD exec "$bench/bin/python" scripts/bench_strategies.py "$@"
