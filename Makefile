# make run    set everything up and train TD-MPC2 with SAM until learning is clearly visible
# make test   the same environment plus the test tools, then the fast tests
# make check  lint and types; make sim, slow, gpu: further tests; make bench: the speed tables
# make docs   the site, in site/
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: run test check sim slow gpu bench docs lock clean

run: $(VENV)/.installed
	$(BIN)/mbrl-flat-train experiment=first_run

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

sim: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m "sim and not slow"

slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m slow --timeout 1800

gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m gpu --timeout 1800

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell mbrl_flat agents envs configs scripts tests docs README.md CONTRIBUTING.md CHANGELOG.md
	rm -rf .typing && mkdir -p .typing/mbrl_flat
	cd .typing/mbrl_flat && ln -s ../../mbrl_flat/* ../../agents ../../envs ../../configs .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The API is read from links that give agents, envs and configs their installed names.
docs: $(VENV)/.installed-dev
	rm -rf .typing && mkdir -p .typing/mbrl_flat
	cd .typing/mbrl_flat && ln -s ../../mbrl_flat/* ../../agents ../../envs ../../configs .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed
	$(BIN)/python scripts/bench.py

# Resolve the ranges of pyproject.toml again; torch stays where it is pinned.
lock:
	rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install -q torch==2.13.0 ".[dmc,atari,wandb,video]"
	(echo "# Every package that a run needs, pinned; written by make lock."; \
	 .lock-venv/bin/pip freeze --all | grep -v -E "^(pip|mbrl-flat|nvidia-|triton)" | sed "s/+cpu//") > requirements.lock
	.lock-venv/bin/pip install -q ".[all,dev,docs]"
	(echo "# The tools of the tests, on top of requirements.lock; written by make lock."; \
	 echo "-r requirements.lock"; \
	 .lock-venv/bin/pip freeze --all | grep -v -E "^(pip|mbrl-flat|nvidia-|triton)" | sed "s/+cpu//" \
	 | grep -v -x -F -f requirements.lock | grep -v "^torchvision==") > requirements-dev.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	# Complete, hence without resolving: curvlinops would bring a torchvision that fits no CPU build.
	$(BIN)/pip install -q --no-deps -r requirements-dev.lock
	touch $@
