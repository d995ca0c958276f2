# make setup | demo | test | check | faults | bench | bench-setup
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
NAME ?= all
export PYTHONHASHSEED ?= 0

.PHONY: setup demo test check faults bench bench-setup tools test-tools
.DEFAULT_GOAL := help

help:
	@echo "make demo   real images and videos -> pool -> manifest -> shards -> a trained model -> runs/demo/report.html"
	@echo "make test   the test suite"
	@echo "make check  format, lint, types, imports and sizes, paths in documents: 9 s, 40 s without mypy's cache (2 cores)"
	@echo "make faults kill tests;      make bench NAME=...  one benchmark (bench-setup installs the peers)"

setup: tools $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; run make PYTHON=python3.12 setup"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	touch $(READY)

tools:
	@sh examples/install_tools.sh

test-tools:
	@sh tests/install_tools.sh

demo: setup
	$(BIN)/python -m examples.demo

test: setup test-tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not faults' -n 2 --dist loadfile --no-loadscope-reorder --durations=10

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.measure
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py

faults: setup test-tools
	$(BIN)/python -m pytest -m faults --timeout 1800

bench: setup
	$(BIN)/python -m benchmarks $(NAME)

bench-setup: setup
	$(BIN)/python -m benchmarks --setup
