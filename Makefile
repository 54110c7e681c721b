# Everything here needs only python3 and make. PYTHON=python3.12 chooses another interpreter, TORCH=2.14.1 another PyTorch,
# in an environment of its own.
PYTHON ?= python3
PINNED := 2.13.0
TORCH ?= $(PINNED)
VENV := .venv$(if $(filter-out $(PINNED),$(TORCH)),-torch-$(TORCH))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q -c $(VENV)/constraints.txt

.PHONY: demo test gpu docs lint clean

demo: $(VENV)/demo
	$(BIN)/stn demo

test: $(VENV)/test
	$(BIN)/python -m pytest -n auto --dist loadfile

# Tests on a CUDA device, then its benchmark within 8 minutes, also after tests that fail. Without a device, each row says so.
gpu: $(VENV)/test
	-$(BIN)/python -m pytest -q -m gpu tests/ops tests/lab/bench
	$(BIN)/stn bench --device cuda --suites all --out benchmarks/results/cuda

docs: $(VENV)/test
	$(BIN)/python -m mkdocs build --strict
	$(BIN)/python docs/extensions/gallery.py

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-torch-* build runs

$(VENV)/demo: pyproject.toml $(VENV)/constraints.txt
	$(PIP) torch==$(TORCH)
	$(PIP) -e '.[train]'
	@touch $@

$(VENV)/test: pyproject.toml $(VENV)/constraints.txt docs/extensions/onnxruntime_web.py
	$(PIP) torch==$(TORCH)
	$(PIP) -e '.[train,bench,docs,export,medical,dev]'
	$(BIN)/python docs/extensions/onnxruntime_web.py
	@touch $@ $(VENV)/demo

# Another torch brings the triton that it was built with.
$(VENV)/constraints.txt: constraints.txt | $(BIN)/python
	sed -E '$(if $(filter-out $(PINNED),$(TORCH)),/^(torch|triton)==/d)' constraints.txt > $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
