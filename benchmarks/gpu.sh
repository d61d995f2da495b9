#!/usr/bin/env bash
# Everything that wants a GPU, in one go: tests on the device, the benchmarks, and the comparisons on CIFAR-10.
# Usage: benchmarks/gpu.sh DATA_DIR OUT_DIR [EPOCHS]   (DATA_DIR holds cifar-10-batches-bin/)
set -euo pipefail
data=$1 out=$2 epochs=${3:-20}
cd "$(dirname "$0")/.."
mkdir -p "$out"
export PYTHONPATH=src PYTHONUNBUFFERED=1
python3 -c "import torch; assert torch.cuda.is_available(), 'no GPU here'; print(torch.__version__, torch.cuda.get_device_name())"
python3 -m pytest -q -m gpu tests --override-ini=filterwarnings=default || [ $? -eq 5 ]
python3 benchmarks/fusion.py --out "$out/fusion-gpu.md"
python3 benchmarks/overhead.py --images 50000 --out "$out/overhead-gpu.md"
for model in resnet20 vgg9; do
    for grid in 2x2 4x4; do
        python3 -m ddcnn compare --data cifar10 --data-dir "$data" --offline --model "$model" --grid "$grid" \
            --epochs "$epochs" --out "$out/c10-$model-$grid" --quiet
    done
done
python3 benchmarks/run_tables.py --title "CIFAR-10 on a GPU" --out "$out/cifar10-gpu.md" "$out"/c10-*/
