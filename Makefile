# `make demo` and `make test` need Python 3.10-3.12 and make, nothing else: the cross compiler and
# the emulator are Python packages. The first run makes .venv, later runs reuse it.
#
#   PYTHON=/path/to/python3.12   another interpreter
#   TORCH="..."                  what pip is asked for when .venv has no torch; see README.md
#   GPU=sm_80 GPU_PYTHON=3.11    for `make gpu-pack`: the card, and the Python beside it

VENV ?= .venv
TORCH ?= torch==2.13.0
BUILD ?= build
JOBS ?= auto
TESTS ?= tests
GPU ?= sm_90a
GPU_PYTHON ?= 3.12

BIN := $(VENV)/bin
READY := $(VENV)/ready
VERSIONS := python3 python3.12 python3.11 python3.10

# One thread a process: the tests run side by side, and small networks gain nothing from more.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench gpu-pack clean

help:
	@echo 'make demo    compile a trained network to Cortex-M4 firmware and run it in the emulator'
	@echo 'make test    lint, then all tests'
	@echo 'make lint    ruff and pyright'
	@echo 'make bench   accuracy, instructions, RAM and flash of the MLPerf Tiny networks'
	@echo 'make gpu-pack   what checks and measures kernels on a machine with a GPU, in build/gpu'
	@echo 'make setup   only the virtual environment, $(VENV)'
	@echo 'make clean   remove what the others made'

setup: $(READY)

$(READY): pyproject.toml
	@python='$(PYTHON)'; found=; \
	for candidate in $${python:-$(VERSIONS)}; do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	    2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: fewbits needs Python 3.10, 3.11 or 3.12; tried: $${python:-$(VERSIONS)}"; \
	  echo "hint:  make PYTHON=/path/to/python3.12 ..."; exit 1; \
	fi; \
	echo "making $(VENV) with $$found ($$($$found --version))"; \
	test -x $(BIN)/python || $$found -m venv $(VENV) || { \
	  echo "hint:  on Debian and Ubuntu the venv module is a package of its own, python3-venv"; \
	  exit 1; }
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	  echo "installing $(TORCH)"; $(BIN)/python -m pip install -q $(TORCH); }
	@echo "installing fewbits and what it needs"
	@$(BIN)/python -m pip install -q -e '.[dev,cuda]'
	@touch $@

demo: $(READY)
	$(BIN)/python models/digits.py $(BUILD)/digits
	$(BIN)/fewbits compile models/digits_dscnn.onnx --target cortex-m4 --recipe int8 \
	  --calibration $(BUILD)/digits/calibration.npz --data $(BUILD)/digits/eval.npz \
	  --out $(BUILD)/demo
	@echo "open $(BUILD)/demo/report.html in a browser"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n $(JOBS) $(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

gpu-pack: $(READY)
	@$(BIN)/python -m pip install -q -e '.[cuda]'
	$(BIN)/python benchmarks/cuda_pack.py --python $(GPU_PYTHON) --out $(BUILD)/gpu
	$(BIN)/python benchmarks/cuda_check.py build --arch $(GPU) --out $(BUILD)/gpu/check
	$(BIN)/python benchmarks/cuda_kernels.py build --arch $(GPU) --out $(BUILD)/gpu/kernels
	@echo "copy $(BUILD)/gpu to the machine with a GPU; docs/cuda.md says what to run there"

bench: $(READY)
	$(BIN)/python benchmarks/mlperf_tiny.py

clean:
	rm -rf $(VENV) $(BUILD) dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
