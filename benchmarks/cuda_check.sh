#!/usr/bin/env bash
# On a machine with a GPU: do training, calibration and testing agree with the CPU? A few minutes; exits with 1 where not.
set -e
cd "$(dirname "$0")/.."
make venv
.venv/bin/python -c 'import torch; assert torch.cuda.is_available(), "PyTorch finds no CUDA device here"; print(torch.cuda.get_device_name())'
# Every test that is parametrised over devices runs on the GPU too.
.venv/bin/python -m pytest -q -k cuda
.venv/bin/python benchmarks/compare_devices.py "$@"
