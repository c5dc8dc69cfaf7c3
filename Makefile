# Every target prepares what it needs; nothing has to be activated.
PY := .venv/bin/python

.PHONY: help setup demo test bench check docs lock clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

setup:  ## .venv with the pinned packages, and a driver to render with
	@scripts/setup.sh

demo: setup  ## the whole pipeline on the CPU, into outputs/; ARGS="seed=1 output.dir=..." changes settings
	@scripts/demo_cpu.sh $(ARGS)

test: setup  ## all tests, in two processes
	@$(PY) -m pytest -n 2 --dist loadfile

bench: setup  ## speed against stock code into outputs/bench/bench.json, up to 12 minutes; ARGS="NAME --quick" for a part
	@$(PY) -m benchmarks $(ARGS)

check: setup  ## style, types, generated docs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m tools.configuration --check
	@$(PY) -m tools.recipes --check
	@$(PY) -m tools.results --check

docs: setup  ## write the pages that are made: configuration, recipes, results
	@$(PY) -m tools.configuration
	@$(PY) -m tools.recipes
	@$(PY) -m tools.results

lock:  ## write requirements.lock from what .venv holds
	@scripts/lock.sh > requirements.lock.new && mv requirements.lock.new requirements.lock

clean:  ## remove caches and builds; outputs/ and .venv stay
	@rm -rf build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
