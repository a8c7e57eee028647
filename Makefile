# `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
OPTIMUM := .venv-optimum
# besides what is of it alone, the rooms that must work there as they do here
ON_OPTIMUM := $(addprefix tests/,methods/test_optimum.py methods/test_train.py methods/test_student.py methods/test_distill.py \
	methods/test_neurons.py flavors/test_exported_text.py)
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db
IN_TWO := OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-optimum check bench ui mlproject clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/base ## the main job: teacher, compression, comparison, promotion, scored table
	mlflow run . --env-manager local --experiment-name llmops-quickstart

test: $(VENV)/test ## the tests that take seconds, in two processes
	$(IN_TWO) -m "not slow" $(PYTEST)

test-slow: $(VENV)/test ## the others: whole runs, clusters, servers, kills
	$(IN_TWO) -m slow $(PYTEST)

test-optimum: $(OPTIMUM)/test ## exporter=optimum, on transformers 4.57 in an environment of its own
	OMP_NUM_THREADS=1 $(OPTIMUM)/bin/python -m pytest $(PYTEST) $(ON_OPTIMUM)

check: $(VENV)/dev ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

bench: $(VENV)/base ## the numbers behind the design: see benchmarks/README.md
	python benchmarks/token_budget.py
	python benchmarks/weight_only.py
	python benchmarks/scoring.py
	python benchmarks/serving.py
	python benchmarks/serve.py
ifdef DATA # a folder with clinc150/, sst2/ and tinyshakespeare/: hours on 2 cores
	python -m pip install -q --no-deps --require-hashes -r benchmarks/requirements.txt
	python benchmarks/teacher_cache.py --data $(DATA)
	python benchmarks/language.py --data $(DATA)
	python benchmarks/top_k.py --data $(DATA)
	python benchmarks/sparsity.py --data $(DATA)
	python benchmarks/distillation.py --data $(DATA)
	python benchmarks/distillation.py --data $(DATA) --students layers:3 --texts 1500
	python benchmarks/int8.py --data $(DATA)
	python benchmarks/pruning.py --data $(DATA)
	python benchmarks/search.py --data $(DATA)
	python benchmarks/overhead.py --data $(DATA)
endif

ui: $(VENV)/base ## the MLflow UI at http://127.0.0.1:5000
	mlflow ui --backend-store-uri $(MLFLOW_TRACKING_URI)

mlproject: $(VENV)/base ## write MLproject anew from steps and methods
	python -m mlflow_llmops.mlproject > MLproject.new && mv MLproject.new MLproject
	python -m mlflow_llmops.mlproject docker > MLproject.new && mv MLproject.new docker/MLproject

clean: ## remove the virtual environments; the tracking store stays
	rm -rf $(VENV) $(OPTIMUM)

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

# Its constraints are ours but for the few packages that optimum-onnx wants older.
$(OPTIMUM)/test: pyproject.toml constraints.txt constraints-optimum.txt
	test -x $(OPTIMUM)/bin/python || $(PYTHON) -m venv $(OPTIMUM)
	sed 's/==.*/==/; s/^/^/' constraints-optimum.txt | grep -vf - constraints.txt > $(OPTIMUM)/constraints.txt
	cat constraints-optimum.txt >> $(OPTIMUM)/constraints.txt
	$(OPTIMUM)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(OPTIMUM)/constraints.txt \
		--editable '.[optimum-onnx,test]'
	touch $@
