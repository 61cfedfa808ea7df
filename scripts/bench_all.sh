#!/usr/bin/env bash
# Every measurement of speed, one after the other, on an otherwise idle machine: about an hour on two cores. What each
# prints is written to runs/bench-all/NAME.txt, from which docs/speed.md is written.
#
#   bash scripts/bench_all.sh                 # all
#   bash scripts/bench_all.sh views rounds    # some of: before start precision step rounds views folder million compare peers
#
# Commands and strategies are compared with an earlier commit ($BEFORE); views, folders and strategies with the
# libraries that have them. Needs data/MNIST, and the network once for the libraries of `peers`.
set -uo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh dev || exit 1
python=$PWD/.venv/bin/python
export PYTHONPATH=$PWD PATH=$PWD/.venv/bin:$PATH
out=runs/bench-all
mkdir -p "$out"
parts=${*:-before start precision step rounds views folder million compare peers}
failed=0

part() { # name, threads, command
    local name=$1 begun=$SECONDS
    local -x OMP_NUM_THREADS=$2
    case " $parts " in *" $name "*) ;; *) return ;; esac
    {
        echo "\$ OMP_NUM_THREADS=$2 ${*:3}"
        echo "$(date -u +%F) $(git rev-parse --short HEAD), load $(cut -d' ' -f1 /proc/loadavg) at the start," \
            "$(grep -c ^processor /proc/cpuinfo) x$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)," \
            "$(grep -m1 -ow -E 'amx_bf16|avx512_bf16|avx512f|avx2' /proc/cpuinfo | sort -u | tr '\n' ' ')"
        echo
        "${@:3}" || { echo "FAILED"; failed=1; }
        echo
        echo "$((SECONDS - begun)) s"
    } >"$out/$name.txt" 2>&1
    echo "$name: $(tail -1 "$out/$name.txt"), $out/$name.txt"
}

part before 1 "$python" scripts/bench_before.py --before "${BEFORE:-ef13931}"
part start 1 "$python" scripts/bench_start.py
part precision 2 "$python" scripts/bench_precision.py
part step 2 "$python" scripts/bench_step.py --repetitions 3
part rounds 1 "$python" scripts/bench_rounds.py
part views 2 "$python" scripts/bench_views.py --repetitions 7
part folder 2 "$python" scripts/bench_views.py --folder --repetitions 7
part million 2 "$python" scripts/million.py
part compare 1 "$python" scripts/compare_strategies.py --jobs 2
part peers 1 bash scripts/bench_strategies.sh
exit $failed
