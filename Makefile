# make run and make test need nothing before them but Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# DeepSparse has wheels for Linux x86-64 and Python before 3.12; its marker leaves it out elsewhere.
EXTRAS := deepsparse,lora,onnx,openvino,ray

.PHONY: help run test faults check bench demo-model clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(VENV)/installed  ## install, then search the demo model at ratio 0.5 (about a minute and a half)
	$(BIN)/slimsearch run --ratio 0.5

test: $(VENV)/installed-dev  ## install, then run every test, one process a core
	$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadfile

faults: $(VENV)/installed-dev  ## the long form of the fault tests: hundreds of kills, cuts and full disks
	SLIMSEARCH_FAULTS=long $(BIN)/pytest -m faults tests/faults

check: $(VENV)/installed-dev  ## ruff, pyright, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/installed  ## time the demo run by stage, and the solver against a plain one
	$(BIN)/python benchmarks/demo_run.py
	$(BIN)/python benchmarks/solver.py

demo-model: $(VENV)/installed  ## train the demo model from scratch into demo-model/
	$(BIN)/python -m slimsearch.demo.train --out demo-model

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[$(EXTRAS)]'
	$(BIN)/python -c 'from slimsearch.native import library; print(library.absent(), end="")'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) --editable '.[$(EXTRAS),dev]'
	$(BIN)/pip check
	touch $@
