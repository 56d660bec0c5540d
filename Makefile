.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test fmt lint type bench

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,qlora,track,embed,remote,dev]'
	@touch $@

setup: $(VENV)/.stamp ## make the environment in .venv with the pinned versions

demo: setup ## the main job on sample_data: curate, train with LoRA, show what happened to every row
	rm -rf demo-out
	$(BIN)/sft curate run recipes/demo.toml --store demo-out/store
	$(BIN)/sft train --manifest demo --model tiny --method lora --out demo-out/run --store demo-out/store

test: lint type ## lint, types, import contracts and all tests
	$(BIN)/python -m pytest -n 2

fmt: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

lint: setup ## check format, lint rules and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: setup ## pyright strict on the four packages
	$(BIN)/pyright

bench: setup ## run the benchmarks
	$(BIN)/python -m bench.annotations
	$(BIN)/python -m bench.cleaning
	$(BIN)/python -m bench.decontaminate --rows 1000000
	$(BIN)/python -m bench.dedup --plot docs/plots
	$(BIN)/python -m bench.dedup --scale 0.1,0.5,1,2,4.2 --plot docs/plots
	$(BIN)/python -m bench.diff
	$(BIN)/python -m bench.diff --apart
	$(BIN)/python -m bench.crash
	$(BIN)/python -m bench.learning
	$(BIN)/python -m bench.review
	$(BIN)/python -m bench.train_cpu --plot docs/plots
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.curation_pays --work curation-pays --plot docs/plots
