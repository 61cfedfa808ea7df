#!/usr/bin/env bash
# How much does SimCLR on 10,000 images lift the kNN accuracy of a backbone, within 20 minutes on two cores?
# Usage: bash scripts/cifar10_lift.sh   (after scripts/install.sh; needs data/cifar10). Prints the accuracy on CIFAR-10's
# 10,000 test images (k = 200, T = 0.1, bank: the 10,000 training images), last epoch, untrained and pretrained.
set -euo pipefail
cd "$(dirname "$0")/.."
config=configs/experiment/cifar10_pretrain.yaml
lightning=.venv/bin/ssl-lightning
checkpoint=runs/cifar10-simclr/checkpoints/last.ckpt
resume=()
if [ -e "$checkpoint" ]; then resume=(--ckpt_path "$checkpoint"); fi
begun=$(date +%s)
$lightning fit -c $config "${resume[@]}" "$@"
echo "pretraining took $(($(date +%s) - begun)) s"
for name in untrained simclr; do
  given=()
  if [ $name = simclr ]; then given=(--ckpt_path "$checkpoint"); fi
  echo "$name:"
  $lightning test -c $config --folder "runs/cifar10-$name-test" "${given[@]}" | grep knn
done
