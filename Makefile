# Every target makes the virtual environment itself where it is not there yet.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/python -m
# Two test processes a core, eight at most: many tests wait for a process that they have started. One that crashes ends the
# run: pytest-xdist, told to start another in its place, may wait for it without end.
SPREAD := --numprocesses $(shell $(PYTHON) -c "import os; print(min(8, 2 * (os.cpu_count() or 1)))") --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help install quickstart quickstart-pose test test-all test-lowest coverage lint docs image gpu-check clean

help: ## Print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# The stamp is newer than pyproject.toml once the installation has succeeded, so a broken one is made again.
$(VENV)/.installed: pyproject.toml
	@echo "Installing into $(VENV): about 6.6 GB with PyTorch and its CUDA libraries, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## Make the virtual environment and install everything

quickstart: $(VENV)/.installed ## Train a factorized binary network on handwritten digits (2 minutes)
	$(BIN)/bnnlight fit --config configs/quickstart.yaml

quickstart-pose: $(VENV)/.installed ## Train a binary hourglass on drawn people, test it, draw what it finds (7 minutes)
	$(BIN)/bnnlight fit --config configs/hg_people.yaml

# torch, told to take one thread, does not take the other processes' cores
test: $(VENV)/.installed ## Run the short tests
	OMP_NUM_THREADS=1 $(RUN) pytest -m 'not slow' -q $(SPREAD)

test-all: $(VENV)/.installed docs ## Run all tests, the long ones too, and build the documentation
	OMP_NUM_THREADS=1 $(RUN) pytest -q $(SPREAD)

gpu-check: $(VENV)/.installed ## Find out in eight minutes what works on this machine's GPU, and how fast
	$(BIN)/python benchmarks/gpu/acceptance.py

coverage: $(VENV)/.installed ## Run the short tests and show which lines of bnnlight/nn they miss
	$(RUN) pytest -m 'not slow' -q --cov=bnnlight.nn --cov-report=term-missing --cov-fail-under=95

# The lower bounds of pyproject.toml, really installed (a second environment, some 6 GB).
test-lowest: $(VENV)/.installed ## Run the short tests with the oldest versions that pyproject.toml admits
	$(BIN)/pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(VENV)-lowest
	$(BIN)/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	$(VENV)-lowest/bin/python -m pytest -m 'not slow' -q

lint: $(VENV)/.installed ## Check style
	$(RUN) ruff check .

# What the extra `docs` names and no more: the site is built from the source's text, so nothing of it is imported.
$(VENV)-docs/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-docs
	sed -n '/^docs = \[/,/^\]/s/^ *\("[^"]*"\),/\1/p' pyproject.toml \
	    | xargs $(VENV)-docs/bin/pip install --quiet --disable-pip-version-check
	@touch $@

docs: $(VENV)-docs/.installed ## Build the documentation as a site in site/ (a minute; the first time 170 MB are installed)
	$(VENV)-docs/bin/python docs/build_site.py

image: ## Build the Docker image `bnnlight` (some 7 GB; a few minutes, seconds after a change of the code)
	docker build --build-arg COMMIT=$$(git rev-parse HEAD) --tag bnnlight .

clean: ## Remove caches and built files; runs, data and the virtual environment stay
	rm -rf .pytest_cache .ruff_cache .coverage build dist site
	find . -name __pycache__ -not -path './$(VENV)*' -prune -exec rm -rf {} +
