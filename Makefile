# Two commands matter: `make demo` and `make test`. Both build the environment first, once. With
# LOCK=requirements.serving.lock they use another one, of the pins that vLLM and SGLang accept.

PYTHON ?= python3
LOCK ?= requirements.lock
VENV := $(if $(filter requirements.lock,$(LOCK)),.venv,.scratch/venv-$(LOCK))
READY := $(VENV)/.ready
# A file of tests is one worker's; tests/conftest.py has the long ones first
TESTS := python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: demo real real-images train-smolvlm test lint unit slow e2e notebook campaign families study-methods study-healing study-real study-real-images study-real-healing bench-collect bench-evaluate bench-engines bench-sample bench-export study-compensation bench-finetune bench-ttft bench-sleb bench-serving bench-prefetch bench-busy deploy-check gpu gpu-wheels environment clean

demo: environment
	sh .ci/lock
	dvc --wait-for-lock repro
	interlace show

# The pipeline on a pretrained model of 135M parameters, in real/; downloads 93 MB, once
real: environment
	cd data/smollm2 && dvc repro
	sh .ci/project real profiles/smollm2-135m.yaml
	cd real && dvc --wait-for-lock repro && interlace show

# The same with images, in real-images/: that decoder with a tower, from trained weights in git, on the demo's rows
real-images: environment
	cd data/smollm2 && dvc repro convert
	cd data/smolvlm && dvc repro merge
	sh .ci/project real-images profiles/smolvlm-137m.yaml
	cd real-images && dvc --wait-for-lock repro && interlace show

# Train those weights anew: about two hours on two idle cores; resumes where it stopped
train-smolvlm: environment
	cd data/smollm2 && dvc repro convert
	cd data/smolvlm && dvc repro training/dvc.yaml && PYTHONPATH=../demo python adapters.py && dvc repro

test: lint
	$(TESTS) -m "not gpu"

lint: environment
	ruff check .
	ruff format --check .
	mypy

unit: environment
	$(TESTS) -m "not slow and not e2e and not gpu"

slow: environment
	$(TESTS) -m "slow and not e2e and not gpu"

e2e: environment
	$(TESTS) -m e2e tests/e2e

# docs/python.ipynb: run it, and write its outputs
notebook: environment
	python tests/notebook_runs.py docs/python.ipynb

# Kills, changed inputs, full disks, two runs at once; resumes where it stopped; writes docs/reliability.md
campaign: environment
	python tests/campaign --page docs/reliability.md

# Every model family on a tiny random model, a minute or two; writes the tables of docs/families.md
families: environment
	python tests/families --page docs/families.md

# Every method on the demo at three ratios, as experiments; writes docs/study-methods.*
study-methods: environment
	python -m studies.methods

# Ways to heal, on the demo at three ratios; resumes where it stopped; writes docs/study-healing.*
study-healing: environment
	dvc repro score
	python -m studies.healing

# Every method on a real pretrained decoder at three ratios; resumes where it stopped; writes docs/study-real*,
# and what it says into docs/study-methods.md, docs/methods.md and README.md
study-real: environment
	cd data/smollm2 && dvc repro
	python -m studies.real

# Every method on that decoder with images, before tuning, and some healed; resumes where it stopped; writes
# docs/study-real-images* and a section of docs/study-real.md
study-real-images: environment
	cd data/smollm2 && dvc repro convert
	cd data/smolvlm && dvc repro merge
	python -m studies.real_images

# Ways to heal that decoder, on labels and on the dense model's own answers; at most 4 hours, resumes where
# it stopped; takes the plans of study-real, or measures what they need; writes docs/study-real-healing* and
# README.md's results
study-real-healing: environment
	cd data/smollm2 && dvc repro
	python -m studies.real_healing

# `collect` beside the obvious way, the bare decoder and two processes; writes docs/bench-collect.md
bench-collect: environment
	dvc repro sample
	python -m benchmarks.collect

# The engines of `evaluate` side by side: speed and equal answers; VLLM="COMMAND" adds a server of
# vLLM or another; about 20 minutes; writes docs/bench-engines.md
bench-engines: environment
	dvc repro export
	python -m benchmarks.engines $(if $(VLLM),--command "$(VLLM)")

# Bytes read, memory and fairness of `sample` on a data set of 2 GB made for it; writes docs/bench-sample.md
bench-sample: environment
	python -m benchmarks.sample

# `evaluate` beside lmms-eval's own loop over samples; writes docs/bench-evaluate.md
bench-evaluate: environment
	python -m benchmarks.evaluate

# `export` beside cp and beside transformers, on checkpoints of 2 to 8 GB in /tmp (BENCH_DIR: another
# place; about 30 GB free); writes docs/bench-export.md
bench-export: environment
	python -m benchmarks.export

# Least-squares compensation and 2:4 sparsity on the demo; writes docs/compensation.md
study-compensation: environment
	dvc repro score
	python -m studies.compensation

# An update of `finetune` beside the plain way; writes docs/bench-finetune.md
bench-finetune: environment
	dvc repro sample
	python -m benchmarks.finetune

# Speedups over the ideal ones on the demo and on a random Qwen3-VL of 2B's shape; writes docs/bench-ttft.md
bench-ttft: environment
	python -m benchmarks.ttft

# Served speedups over the ideal ones, on the demo and on a larger random model, by the server that
# VLLM="COMMAND" starts; about 20 minutes; writes docs/bench-serving.md
bench-serving: environment
	python -m benchmarks.serving --command "$(VLLM)"

# `collect` and `evaluate` with images opened ahead, beside opening and computing alone (20 minutes);
# writes docs/bench-prefetch.md
bench-prefetch: environment
	python -m benchmarks.prefetch

# Updates of the demo idle and beside a busy loop per core (5 minutes; REPRO=--repro: `dvc repro` too,
# 25 more); writes docs/bench-busy.md
bench-busy: environment
	dvc repro sample
	python -m benchmarks.busy $(REPRO)

# SLEB's removals with shared states beside full passes; writes docs/bench-sleb.md
bench-sleb: environment
	python -m benchmarks.sleb

# The demo's dense and pruned checkpoints in vLLM, llama.cpp, OpenVINO, MLX and others, each in an
# environment of its own in .scratch; at most 40 minutes and 25 GB, resumes where it stopped; writes docs/deploy-check.md
deploy-check: environment
	python -m benchmarks.deploy

# Every test marked gpu and every measurement that needs a GPU, within ten minutes; writes docs/gpu.md. It uses the
# environment, or where .wheels exists a Python that has torch and transformers. GPU="--tiny" tries it on a CPU
gpu: $(if $(wildcard .wheels),,environment)
	sh .ci/gpu $(GPU)

# What `make gpu` takes along to a machine without network, into .wheels
gpu-wheels: environment
	sh .ci/wheels

environment: $(READY)

$(READY): $(LOCK) pyproject.toml
	PYTHON="$(PYTHON)" VENV="$(VENV)" LOCK="$(LOCK)" sh .ci/environment
	touch $@

clean:
	rm -rf .venv .scratch
