#!/bin/bash
# Everything once on a GPU, a few steps each: every method, classifier and strategy, torch.compile, bf16; then by the
# command line on one device and on two. For the day a GPU is lent; needs a checkout, and no data.
#
#   bash scripts/gpu_smoke.sh          # two devices only where there are two
#   bash scripts/gpu_smoke.sh cpu      # the same on the CPU, to try the script
#
# Prints a line for each part, what failed with the end of its output, and counts. A part that fails stops no other.
set -u
accelerator=${1:-gpu}
python=${PYTHON:-python}
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
out=$(mktemp -d)
failed=0
devices=1
if [ "$accelerator" = cpu ] || [ "$("$python" -c 'import torch; print(torch.cuda.device_count())')" -gt 1 ]; then
    devices="1 2"
fi

"$python" scripts/gpu_smoke.py --accelerator "$accelerator" || failed=1

part() { # name, arguments of ssl-lightning
    local name=$1 begun=$SECONDS
    shift
    if "$python" -m ssl_lightning "$@" --trainer.accelerator "$accelerator" --folder "$out/$name" >"$out/log" 2>&1; then
        echo "ok      $name  $((SECONDS - begun)) s"
    else
        echo "FAILED  $name"
        tail -20 "$out/log"
        failed=1
    fi
}

for count in $devices; do
    group=(--trainer.devices "$count")
    [ "$count" = 2 ] && group+=(--trainer.strategy ddp)
    for precision in 32-true bf16-mixed; do
        part "fit-simclr-$count-$precision" fit -c data/digits -c method/simclr --trainer.max_epochs 1 \
            --trainer.precision "$precision" "${group[@]}"
    done
    for strategy in Entropy BADGE TypiClust; do
        part "active-$strategy-$count" active -c data/digits -c active/classifier --strategy "$strategy" --rounds 2 \
            --steps_per_epoch 10 "${group[@]}"
    done
done
exit $failed
