#!/usr/bin/env bash
# Everything that wants a GPU, in stages of some ten minutes each:
#
#   benchmarks/gpu.sh STAGE DATA_DIR OUT_DIR     (DATA_DIR holds cifar-10-batches-bin/)
#
#   check      tests on the device, versions, precisions                     about 2 minutes,  2 GB
#   fusion     fused steps against loop, vmap and peers, 2-D and 3-D, and
#              what CUDA graphs save                                         about 10 minutes, 16 GB (64x64x64 volumes)
#   train      CIFAR-10, ResNet20 2x2, one and two levels: time to 0.9117    about 10 minutes, 4 GB
#   compare    all strategies, ResNet20 and VGG9, 2x2 and 4x4, 20 epochs     about 10 minutes, 4 GB
#
# Times and memory are estimates for a current server GPU, from operations and the memory plan; none has been measured.
# OUT_DIR gets tables whose names hold the hardware; a stage that ran out of time goes on when it is given again.
set -euo pipefail
stage=$1 data=$2 out=$3
cd "$(dirname "$0")/.."
mkdir -p "$out"
out=$(cd "$out" && pwd)
export PYTHONPATH=src PYTHONUNBUFFERED=1
hardware=$(python3 -c "
import re, torch
assert torch.cuda.is_available(), 'no GPU here'
print(re.sub('[^a-z0-9]+', '-', torch.cuda.get_device_name().lower()).strip('-'))")

run() { # FOLDER ARGUMENTS...: a comparison, or the rest of one
    local folder=$1
    shift
    if [ -e "$folder/comparison.json" ]; then return; fi
    if [ -e "$folder/config.yaml" ]; then
        python3 -m ddcnn compare --resume "$folder" --quiet
    else
        python3 -m ddcnn compare --data cifar10 --data-dir "$data" --offline --out "$folder" --quiet "$@"
    fi
}

case $stage in
check)
    python3 -m ddcnn doctor
    python3 -m pytest -q -m gpu tests --override-ini=filterwarnings=default || [ $? -eq 5 ]
    ;;
fusion)
    python3 benchmarks/fusion.py --large --budget 3 --resume --out "$out/fusion-$hardware.md"
    python3 benchmarks/cuda_graph.py --budget 1 --out "$out/cuda-graph-$hardware.md"
    python3 benchmarks/peers.py --budget 3 --resume --out "$out/peers-$hardware.md"
    python3 benchmarks/overhead.py --images 50000 --out "$out/overhead-$hardware.md"
    ;;
train)
    run "$out/strong-one" --model resnet20 --grid 2x2 --recipe strong
    run "$out/strong-two" --model resnet20 --grid 2x2 --recipe strong --coarse --overlap 2 \
        --set aggregation.features=penultimate
    python3 benchmarks/run_tables.py --title "CIFAR-10, recipe strong" --out "$out/strong-$hardware.md" "$out"/strong-*/
    ;;
compare)
    for model in resnet20 vgg9; do
        for grid in 2x2 4x4; do
            run "$out/c10-$model-$grid" --model "$model" --grid "$grid" --epochs 20
        done
    done
    python3 benchmarks/run_tables.py --title "CIFAR-10 on a GPU" --out "$out/cifar10-$hardware.md" "$out"/c10-*/
    ;;
*)
    echo "no stage $stage: check, fusion, train or compare" >&2
    exit 2
    ;;
esac
