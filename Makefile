# Two commands are the whole set-up: `make demo` and `make test`. Both make .venv if it is not there.
PYTHON ?= python3.11
PIP = .venv/bin/python -m pip --disable-pip-version-check -q
SOURCES = pyproject.toml constraints.txt

.PHONY: demo test lint clean

demo: .venv/core
	.venv/bin/qdgnn demo

test: .venv/dev lint
	.venv/bin/pytest -q -m "slow or not slow"

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# torch first and pinned: an unpinned one brings gigabytes of CUDA packages
.venv/core: $(SOURCES)
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e .
	touch $@

.venv/dev: .venv/core
	$(PIP) install -c constraints.txt -e '.[all,dev]'
	touch $@

clean:
	rm -rf .venv build dist demo_output *.egg-info
