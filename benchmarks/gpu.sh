#!/usr/bin/env bash
# One command on a bare machine with a GPU, torch and transformers: at most ten minutes.
#
#     bash benchmarks/gpu.sh [OUT] [--rows 1024 --students 1 8 32 128 --minutes 9]
#
# It needs no installation: the package is read from src. The small packages that a bare machine may
# lack are taken from wheels/, if that folder is there. The embedded model may lie in model/, as a
# folder or as two halves model/model.safetensors.part0 and .part1, which are joined first.
set -eu
cd "$(dirname "$0")/.."
out=${1:-${OUT:-build/gpu}}
[ $# -gt 0 ] && shift
mkdir -p "$out"
if [ -d wheels ]; then
  python3 -m pip install -q --no-index --no-deps --find-links wheels wheels/*.whl
fi
if [ -f model/model.safetensors.part0 ]; then
  cat model/model.safetensors.part0 model/model.safetensors.part1 > model/model.safetensors
fi
model=()
[ -f model/model.safetensors ] && model=(--model model)
PYTHONPATH=src:benchmarks timeout 590 python3 benchmarks/gpu.py "${model[@]}" --out "$out/gpu.json" "$@" \
  | tee "$out/gpu.txt"
