# Each goal does all of its own set-up: virtual environment, packages, weights. Nothing else is needed.
PYTHON ?= python3.11
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: test demo lint format clean

test: $(VENV)/.installed-dev
	$(VENV)/bin/pifr models fetch
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

demo: $(VENV)/.installed
	$(VENV)/bin/pifr models fetch
	$(VENV)/bin/pifr demo

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python setup.py pyproject.toml requirements/base.txt requirements/constraints.txt
	$(PIP) -r requirements/base.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/train.txt requirements/dev.txt
	$(PIP) -r requirements/dev.txt
	touch $@
