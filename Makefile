# Everything a user needs: `make quickstart`, `make test`, `make clean`. BUILD.md explains the rest.
PYTHON ?= python3
VENV ?= .venv
RUN := runs/quickstart
JOBS ?= 2# processes that share the tests, each a file at a time; 1.5 GB of memory each
PYTEST = -m pytest -n $(JOBS) --dist loadfile --durations=25

# Files of tests that run whole studies or compile many programs.
LONG = launch/test_end_to_end.py launch/test_damages.py launch/test_plan.py launch/test_failures.py saes/test_lanes.py saes/test_step.py \
  saes/test_capacity.py activations/language_model/test_splice.py $(addprefix experiments/,data/test_own_data.py training/test_train_stage.py \
  training/test_sweep.py training/test_gaussian.py subspaces/test_atlas_stages.py ground_truth/test_synthetic_study.py ground_truth/test_grid.py)

.PHONY: quickstart test test-fast test-slow test-interop test-colab bench lint lock clean

quickstart: $(VENV)/.installed
	$(VENV)/bin/python -m launch.main --config=configs/quickstart.py --workdir=$(RUN)

test: lint
	$(VENV)/bin/python $(PYTEST)

# For whoever edits.
test-fast: lint
	$(VENV)/bin/python $(PYTEST) $(addprefix --ignore=tests/,$(LONG))

test-slow: $(VENV)/.installed-test
	$(VENV)/bin/python $(PYTEST) -m slow

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Against torch transformers, SAELens and sparsify, in an environment of its own (torch is large).
test-interop: .venv-interop/.installed
	.venv-interop/bin/python -m pytest -p no:cacheprovider -m interop

# Training steps beside those of torch libraries, in the same environment.
bench: .venv-interop/.installed
	.venv-interop/bin/python -m benchmarks.train --json=benchmarks/train.json

.venv-interop/.installed: requirements-interop.txt
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-interop.txt
	touch $@

# The versions of Colab's TPU runtime, in an environment of their own.
test-colab: .venv-colab/.installed
	.venv-colab/bin/python -m pytest -p no:cacheprovider

.venv-colab/.installed: requirements-colab.txt
	$(PYTHON) -m venv .venv-colab
	.venv-colab/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-colab.txt
	touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c '' || { echo "error: $(PYTHON) does not run here; say which to use: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than Python 3.11; say which to use: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-test: requirements-test.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@ $(VENV)/.installed

# Renews the locks from the ranges in pyproject.toml.
lock: | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --extra png \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.txt
	$(VENV)/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --extra png --extra test \
	  -c requirements.txt --custom-compile-command "make lock" pyproject.toml -o requirements-test.txt

clean:
	rm -rf $(VENV) .venv-colab .venv-interop $(RUN) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
