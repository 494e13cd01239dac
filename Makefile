# Each target makes .venv first where it is missing. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
NBGRADER := $(BIN)/python -m graders nbgrader

.PHONY: help lab demo test lint course lessons grade bench clean
help:
	@grep -E '^# `make' Makefile | sed 's/^# //'

# `make .venv`    the environment alone, as pinned in binder/constraints.txt
.venv: .venv/installed
.venv/installed: pyproject.toml binder/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c binder/constraints.txt -e ".[course,test,oracle]"
	@touch $@

# `make lab`      opens JupyterLab on the course
lab: .venv/installed
	JUPYTER_CONFIG_PATH=$(CURDIR)/graders $(BIN)/jupyter lab --notebook-dir=course

# `make demo`     the whole way once: course, three submissions, grades, feedback, a small GPT
demo: .venv/installed
	@.ci/system --optional bubblewrap
	$(BIN)/python -m solutions.demo

# `make test`     linting, types and the whole test suite
test: .venv/installed
	@.ci/system --optional bubblewrap chromium
	$(MAKE) lint
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# `make course`   rebuilds course/ from solutions/
course: .venv/installed
	$(BIN)/python -m solutions.build

# `make lessons`  runs every solved lesson in full and prints its time, memory and figures  (ONLY="04 05")
lessons: .venv/installed
	$(BIN)/python -m solutions.run $(if $(ONLY),--only $(ONLY))

# `make grade`    autogrades submitted/ into gradebook.db and writes feedback/  (ASSIGNMENT=04_attention)
ASSIGNMENT ?= 04_attention
grade: .venv/installed
	$(NBGRADER) autograde $(ASSIGNMENT)
	$(NBGRADER) generate_feedback $(ASSIGNMENT)

# `make bench`    the benchmarks, as a table and as JSON  (ONLY=grading, which takes minutes, with OTTER_PYTHON=...)
bench: .venv/installed
	$(BIN)/python -m tests.benchmarks $(ONLY)

# `make clean`    removes what the other targets made, but not .venv
clean:
	rm -rf .build build dist demo runs test-results .pytest_cache .mypy_cache .ruff_cache
