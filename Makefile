# `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

SEED ?= 0
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
TORCH ?= torch torchvision

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
INSTALLED := .venv/.installed

.PHONY: help venv quickstart quickstart-smoke glyph-lt glyph-lt400 test test-fast lint

help:
	@echo 'make quickstart [SEED=0]   from nothing to a calibrated detector, a table and pictures (7 to 12 minutes on 2 cores)'
	@echo 'make glyph-lt [SEED=0]     the same with the full configuration (13 to 21 minutes on 2 cores)'
	@echo 'make glyph-lt400 [SEED=0]  the same with 400 classes (40 to 60 minutes on 2 cores)'
	@echo 'make quickstart-smoke      the same road in a few iterations, to see that it is open'
	@echo 'make test                  the test suite (4 to 6 minutes on 2 cores)'
	@echo 'make test-fast             the tests that are not slow, for daily work (under a minute)'
	@echo 'make lint                  ruff'
	@echo 'make venv                  only install, into .venv'
	@echo
	@echo 'PYTHON=python3.12          the interpreter to make .venv from (3.10 or newer)'
	@echo 'CONSTRAINTS=               the newest packages instead of the tested ones in constraints.txt'
	@echo 'TORCH="torch torchvision --index-url https://download.pytorch.org/whl/cpu"    PyTorch without CUDA'

quickstart: $(INSTALLED)
	$(PY) tools/quickstart.py --seed $(SEED)

quickstart-smoke: $(INSTALLED)
	$(PY) tools/quickstart.py --seed $(SEED) --smoke

glyph-lt: $(INSTALLED)
	$(PY) tools/quickstart.py --seed $(SEED) --full

glyph-lt400: $(INSTALLED)
	$(PY) tools/quickstart.py --seed $(SEED) --classes-400

test: $(INSTALLED)
	$(PY) -m pytest

test-fast: $(INSTALLED)
	$(PY) -m pytest -m 'not slow'

lint: $(INSTALLED)
	.venv/bin/ruff check .

venv: $(INSTALLED)

$(INSTALLED): setup.py $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	    || { echo 'error: $(PYTHON) is missing or older than Python 3.10; name another one: make PYTHON=python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	$(PIP) -e '.[dev]'
	@$(PY) -c 'import cv2' 2>/dev/null \
	    || { echo 'opencv-python needs libGL, which this machine lacks: installing it without a display'; \
	         $(PIP) --no-deps --force-reinstall opencv-python-headless; }
	@touch $@
