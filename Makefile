# Two commands matter: `make demo` and `make test`. Both build the environment first, once.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: demo test lint unit e2e study-methods bench-collect bench-evaluate environment clean

demo: environment
	dvc repro
	interlace show

test: lint unit e2e

lint: environment
	ruff check .
	ruff format --check .
	mypy

unit: environment
	python -m pytest -q -m "not e2e and not gpu" -n 2 --dist loadfile

e2e: environment
	python -m pytest -q -m e2e

# Every method on the demo at three ratios, as experiments; writes docs/study-methods.*
study-methods: environment
	python -m benchmarks.study_methods

# `collect` beside the obvious way, the bare decoder and two processes; writes docs/bench-collect.md
bench-collect: environment
	dvc repro sample
	python -m benchmarks.collect

# `evaluate` beside lmms-eval's own loop over samples; writes docs/bench-evaluate.md
bench-evaluate: environment
	python -m benchmarks.evaluate

environment: $(READY)

$(READY): requirements.lock pyproject.toml
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh .ci/environment
	touch $@

clean:
	rm -rf $(VENV) .scratch
