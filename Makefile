# `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check bench ui mlproject clean

help: ## print this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/base ## the main job: teacher, compression, comparison, promotion, scored table
	mlflow run . --env-manager local --experiment-name llmops-quickstart

test: $(VENV)/test ## every test, slow ones too
	OMP_NUM_THREADS=1 python -m pytest $(PYTEST)

check: $(VENV)/dev ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

bench: $(VENV)/base ## the numbers behind the design: see benchmarks/README.md
	python benchmarks/token_budget.py
	python benchmarks/weight_only.py
ifdef DATA # a folder with clinc150/, sst2/ and tinyshakespeare/: hours on 2 cores
	python -m pip install -q --no-deps --require-hashes -r benchmarks/requirements.txt
	python benchmarks/teacher_cache.py --data $(DATA)
	python benchmarks/language.py --data $(DATA)
	python benchmarks/top_k.py --data $(DATA)
	python benchmarks/distillation.py --data $(DATA)
	python benchmarks/distillation.py --data $(DATA) --students layers:3 --texts 1500
	python benchmarks/int8.py --data $(DATA)
	python benchmarks/pruning.py --data $(DATA)
endif

ui: $(VENV)/base ## the MLflow UI at http://127.0.0.1:5000
	mlflow ui --backend-store-uri $(MLFLOW_TRACKING_URI)

mlproject: $(VENV)/base ## write MLproject anew from steps and methods
	python -m mlflow_llmops.mlproject > MLproject.new && mv MLproject.new MLproject

clean: ## remove the virtual environment; the tracking store stays
	rm -rf $(VENV)

# One environment; each stamp adds an extra to it.
$(VENV)/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/test: $(VENV)/base
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/dev: $(VENV)/test
	$(PIP) --editable '.[dev]'
	touch $@
