# `make demo` and `make test` need Python 3.11 or later, make and a C library; they make the .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.made
RIVALS := .venv-rivals
PEERS  := .venv-peers

.PHONY: demo test lint type unit real-test container-test bench bench-datasets bench-replay bench-fills bench-cold bench-days bench-recorder bench-faults clean crash-test fault-test long-test peer-test

demo: $(STAMP)
	@$(BIN)/mmdata demo

test: lint type unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/mypy

# Three at a time on two processors: many tests wait for a recorder, and the others need a processor. A file's
# tests share what its fixtures made. Files in order, so that the few that take long are not the last. Which
# defects are planted where is drawn each time, and said at the end.
unit: $(STAMP)
	$(BIN)/python -m tests.warm_up
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder

# Fails where the real captures are missing, instead of skipping.
real-test: $(STAMP)
	$(BIN)/pytest -q -m real --require-real

# Those who read our exports do so, in an environment of their own. Fails where they or the captures are missing.
peer-test: $(STAMP) $(PEERS)/.made
	MMDATA_PEERS=$(PEERS)/bin/python $(BIN)/pytest -q -m real --require-real tests/real/test_export_peers.py tests/real/test_fill_peers.py

# Builds the image and runs it; as root. Fails where that cannot be done, instead of skipping.
container-test: $(STAMP)
	$(BIN)/pytest -q -m container --require-container tests/container

# The .venv is remade when what it is made from changes. A machine without ensurepip gets one sentence.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mmdata needs Python 3.11 or later, this is " + sys.version.split()[0] + ": name another by PYTHON=python3.x")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "this Python has no ensurepip, so no virtual environment can be made: install your system's python3-venv package, then run make again" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

# 500 kills; RUNS and SEED choose others, such as the one that failed.
RUNS ?= 500
SEED ?= 0
# What takes minutes, and is no part of `make test`.
long-test: $(STAMP)
	$(BIN)/pytest -q -m long

crash-test: $(STAMP)
	$(BIN)/python -m tests.crash.matrix --runs $(RUNS) --seed $(SEED)

# Every kind of fault, with one connection and then with two; the seed is drawn and printed, or given as FAULT_SEED.
DURATION ?= 10m
fault-test: $(STAMP)
	$(BIN)/python -m tests.explain.everything --duration $(DURATION) $(if $(FAULT_SEED),--seed $(FAULT_SEED))

bench: $(STAMP)
	$(BIN)/python benchmarks/first_light.py
	$(BIN)/python benchmarks/ingest.py --megabytes 200

# Beside other recorders, which get an environment of their own (one of them is compiled: a C compiler).
# Making and checking a dataset, beside hftbacktest's converter; needs the real captures.
bench-datasets: $(STAMP) $(RIVALS)/.made
	$(BIN)/python -m benchmarks.datasets

bench-replay: $(STAMP) $(RIVALS)/.made
	$(BIN)/python -m benchmarks.replay

# Fills beside hftbacktest's, one by one; needs the real captures.
bench-fills: $(STAMP) $(RIVALS)/.made
	$(BIN)/python -m benchmarks.fills

# From cold files to fills, in new processes; needs the real captures.
bench-cold: $(STAMP) $(RIVALS)/.made
	$(BIN)/python -m benchmarks.cold

# A month and many parameter sets: 10 GB of disk; needs the real captures.
bench-days: $(STAMP)
	$(BIN)/python -m benchmarks.days

bench-recorder: $(STAMP) $(RIVALS)/.made
	$(BIN)/python -m benchmarks.recorder

bench-faults: $(STAMP) $(RIVALS)/.made
	$(BIN)/python -m benchmarks.faults

$(RIVALS)/.made: benchmarks/rivals/constraints.txt
	@rm -rf $(RIVALS)
	@$(PYTHON) -m venv $(RIVALS)
	@echo "installing the rivals into $(RIVALS) ..."
	@$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check -c $< cryptofeed crypto-lob-stream 'hftbacktest[numba,numpy,polars]'
	@touch $@

$(PEERS)/.made: benchmarks/peers/constraints.txt
	@rm -rf $(PEERS)
	@$(PYTHON) -m venv $(PEERS)
	@echo "installing the peers into $(PEERS) ..."
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c $< hftbacktest nautilus_trader msgspec numba polars
	@touch $@

clean:
	rm -rf $(VENV) $(RIVALS) $(PEERS) dist .pytest_cache .mypy_cache .ruff_cache
