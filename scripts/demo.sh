#!/usr/bin/env bash
# From unlabelled digits to a good model with few labels: pretrain, then compare strategies from scratch and from the SSL
# weights. No download, no account. Four to seven minutes on two cores after installing. Results: runs/digits-compare.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh
begun=$(date +%s)
lightning=.venv/bin/ssl-lightning
if [ ! -e runs/digits-simclr/done ]; then
  rm -rf runs/digits-simclr
  $lightning fit -c experiment/digits_pretrain
  touch runs/digits-simclr/done
fi
$lightning compare experiment/digits_compare
echo "took $(($(date +%s) - begun)) s; table, picture and report: runs/digits-compare/{table.md,curves.png,report.html}"
