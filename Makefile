# Everything here needs only python3 and make. PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs lint clean

demo: .venv/demo
	$(BIN)/stn demo

test: .venv/test
	$(BIN)/python -m pytest -n auto --dist loadfile

docs: .venv/test
	$(BIN)/python -m mkdocs build --strict

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs

.venv/demo: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train]'
	@touch $@

.venv/test: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,bench,docs,export,dev]'
	@touch $@ .venv/demo

.venv/bin/python:
	$(PYTHON) -m venv .venv
