#!/usr/bin/env bash
# Build the documentation site into build/site/html; any warning is an error. `docs.sh look` then opens every page in
# Chromium (of apt), as on a desktop and on a phone. Options after `look` go to scripts/site_look.py.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh "$([ "${1:-}" = look ] && echo dev || echo docs)"
.venv/bin/python scripts/docs_tables.py
.venv/bin/python scripts/site_pages.py
said=$(PYTHONPATH=scripts .venv/bin/zensical build -f build/site/zensical.toml --clean --strict 2>&1) || { echo "$said"; exit 1; }
echo "$said"
if grep -iE "griffe:|warning" <<<"$said"; then exit 1; fi  # docstrings are not covered by --strict
echo "open build/site/html/index.html"
if [ "${1:-}" = look ]; then .venv/bin/python scripts/site_look.py "${@:2}"; fi
