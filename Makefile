# Each target works on a fresh machine with Python 3.11 or later, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.ready-demo
READY := $(VENV)/.ready
READY_DOCS := $(VENV)/.ready-docs
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUN := runs/demo

.PHONY: demo test test-fast lint wheel audit bench docs readme golden clean

demo: $(DEMO)  ## train every strategy on 5,000 digits, print the table, write a report
	$(BIN)/ddcnn compare --data mnist5k --model vgg9 --grid 2x2 --epochs 8 --out $(RUN) --force

test: $(READY) lint  ## lint, types, import layers, doctests, tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

test-fast: $(READY)  ## the tests that a change is likely to concern, without the slow ones
	files=$$($(BIN)/python tests/concerned.py); test -z "$$files" || \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow" $$files

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file .ci/mypy-benchmarks.ini
	$(BIN)/lint-imports --no-cache

wheel: $(READY)  ## build the sdist and the wheel into dist/, and try the wheel where there is nothing else
	$(BIN)/python .ci/wheel_smoke.py

audit: $(READY)  ## known vulnerabilities of the pinned packages, where the index that knows them is reachable
	$(BIN)/python .ci/audit.py

bench: $(READY)  ## what a fused step saves, what the training loop costs
	$(BIN)/python benchmarks/fusion.py
	$(BIN)/python benchmarks/overhead.py

docs: $(READY_DOCS)  ## the documentation as a site: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

readme: $(READY)  ## put the table and the pictures of the demo's run into the README
	$(BIN)/python docs/make_readme.py $(RUN)

golden: $(READY)  ## write the golden losses anew: only after a change that is meant to change them
	$(BIN)/python tests/golden/make_golden.py

clean:
	rm -rf $(VENV) $(VENV)-audit build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What the demo needs is installed without the rest: tools, Ray, MONAI, transformers, Zarr. Python
# compiles a file when it first imports it, so pip need not compile all of them.
$(DEMO): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --no-compile --editable ".[demo]"
	touch $@

$(READY): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable ".[all,dev]"
	touch $(DEMO) $@

$(BIN)/pip:
	$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else 'ddcnn needs Python 3.11 or later, this is ' + sys.version.split()[0] + '; try make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)

$(READY_DOCS): $(READY)  # beside the rest, so that the demo and the tests need not wait for it
	$(INSTALL) --editable ".[docs]"
	touch $@
