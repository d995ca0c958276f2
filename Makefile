# make setup | demo | ablation | test | check | faults | bench | bench-setup | lmms | wheel-test | audit | sbom
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
AUDIT := .venv-audit
LMMS := .venv-lmms
VULNERABILITIES ?= https://pypi.org/pypi/pip/json
NAME ?= all
export PYTHONHASHSEED ?= 0

.PHONY: setup demo ablation test check faults bench bench-setup wheel-test tools test-tools audit sbom lmms
.DEFAULT_GOAL := help

help:
	@echo "make demo   real images and videos -> pool -> manifest -> shards -> a trained model -> runs/demo/report.html"
	@echo "make ablation  eight variants of the demo, two seeds each -> runs/ablation/report.html"
	@echo "make test   the test suite"
	@echo "make check  format, lint, types, imports and sizes, paths in documents: 9 s, 40 s without mypy's cache (2 cores)"
	@echo "make audit  known vulnerabilities of what is installed;      make sbom  a CycloneDX bill of materials"
	@echo "make lmms   lmms-eval in an environment of its own (6.5 GB), its tasks and table over the demo's model"
	@echo "make faults kill tests;      make bench NAME=...  one benchmark (bench-setup installs the peers)"

setup: tools $(READY)

LOCKED = -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps

# by digest; which build of torch a machine gets is its package index's choice
$(READY): pyproject.toml locks/all.txt locks/build.txt locks/torch.txt locks/torch_cpu.txt locks/cuda.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; run make PYTHON=python3.12 setup"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(LOCKED) -r locks/build.txt
	$(BIN)/python $(LOCKED) --no-build-isolation -r locks/all.txt
	$(BIN)/python $(LOCKED) -r locks/torch_cpu.txt 2>/dev/null || \
	  { echo "no torch for the processor alone at this package index: the one with CUDA, gigabytes"; \
	    $(BIN)/python $(LOCKED) -r locks/torch.txt -r locks/cuda.txt; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

tools:
	@sh examples/install_tools.sh

test-tools:
	@sh tests/install_tools.sh

demo: setup
	$(BIN)/python -m examples.demo

# over the demo's pool, from its stage I; what is there is not made again
ablation: setup
	test -f runs/demo/train1/model/data.json || $(BIN)/python -m examples.demo
	$(BIN)/python -m pipeline build mixtures/demo_held_out.yaml --out runs/ablation/held_out --pool runs/demo/pool --no-shards
	$(BIN)/python -m train ablate examples/ablation.yaml --out runs/ablation --at-once 2
	$(BIN)/python -m train report runs/ablation --attend

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

# the wheel with all that it needs, installed anew: minutes and gigabytes, so no part of `test`
wheel-test: setup
	rm -rf runs/wheel && mkdir -p runs/wheel/empty
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir runs/wheel .
	$(PYTHON) -m venv runs/wheel/env
	runs/wheel/env/bin/python -m pip install --quiet --constraint constraints.txt runs/wheel/*.whl
	$(BIN)/python -m examples.own_files runs/wheel/empty/own
	cd runs/wheel/empty && ../env/bin/slowfast-mix init own --for scratch \
	  && ../env/bin/slowfast-mix build own/recipe.yaml --out out --pool pool

$(AUDIT)/ready: locks/audit.txt
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python $(LOCKED) -r locks/audit.txt
	touch $@

# a package that could not be asked about is no clean bill: --strict
audit: $(AUDIT)/ready
	@$(PYTHON) -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=30)' $(VULNERABILITIES) 2>/dev/null || \
	  { echo "error: no database of vulnerabilities can be reached ($(VULNERABILITIES)); nothing was audited"; exit 2; }
	$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r locks/all.txt -r locks/torch.txt -r locks/build.txt -r locks/cuda.txt

sbom: $(AUDIT)/ready
	$(AUDIT)/bin/cyclonedx-py requirements locks/run.txt --pyproject pyproject.toml --output-file sbom.cdx.json

$(LMMS)/ready: locks/lmms.txt
	test -x $(LMMS)/bin/python || $(PYTHON) -m venv $(LMMS)
	$(LMMS)/bin/python $(LOCKED) -r locks/lmms.txt
	$(LMMS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# outside `test`: gigabytes, and a torch of its own
lmms: setup $(LMMS)/ready
	$(BIN)/python -m benchmarks lmms

bench: setup
	$(BIN)/python -m benchmarks $(NAME)

bench-setup: setup
	$(BIN)/python -m benchmarks --setup
