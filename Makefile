# `make run` shows the broker at work, `make test` proves it. Both need Python 3.11 or newer and a
# package index, and change nothing outside this directory and $TMPDIR. GNU Make 3.81 (macOS) will do.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test callers simulate chaos drill lights fuzz bench lint format proto lock image clean

# Further arguments for the program that a target runs.
ARGS =

# Modules of the caller's shell are none of ours.
unexport PYTHONPATH PYTHONHOME

# Nothing is kept in the home directory, and `user = true` in somebody's pip.conf fails in a .venv.
PIP = PIP_USER=0 .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input \
	--no-cache-dir install

export CLONE := $(CURDIR)

# A .venv knows where it is: in a clone that was moved or copied it is made again.
ifneq ($(shell cat .venv/.packages 2>/dev/null),$(CURDIR))
.PHONY: .venv/.packages
endif

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo 'ARGS="…" adds arguments: make run ARGS=--once, make test ARGS="-k coalesce -x"'

run: .venv/.project ## start everything, take a demo tenant through consent, stay until Ctrl-C
	@exec .venv/bin/token-broker dev $(ARGS)

# A part of the suite says nothing about coverage, so that is measured without ARGS only. Most of its
# time is waiting for real servers: four files at a time. What breaks real processes by the clock is
# alone on the machine.
PYTEST = .venv/bin/python -m pytest
PARALLEL = --numprocesses=4 --dist=loadfile --no-loadscope-reorder

test: .venv/.project ## run the tests, on real servers
ifeq ($(ARGS),)
	@$(CALLERS) node
	@$(PYTEST) tests/chaos
	@$(PYTEST) --ignore=tests/chaos $(PARALLEL) --cov --cov-report=
	@$(COVERAGE)
else
	@$(PYTEST) $(ARGS)
endif

# Their packages come from the registries of Go and npm, and stay in the .venv. Without a toolchain or
# a registry it says so, and the tests of that caller are skipped. Those in Go take two cores minutes to
# compile, so `make test` builds the one in Node alone, and runs all that are there.
CALLERS = PYTHONPATH=.:tests .venv/bin/python -m support.toolchains

callers: .venv/.project ## build the example callers in Go and Node, for the tests to run
	@$(CALLERS)

COVERAGE = .venv/bin/python -m coverage report --include='broker/domain/*,broker/service/*' \
	&& .venv/bin/python -m coverage report --include='broker/domain/*' --fail-under=100 >/dev/null \
	|| { echo 'Coverage: every line and branch of broker/domain must be run by a test.'; exit 1; }

# SEED=7 replays one schedule with its story; MUTANTS=1 breaks the broker in every known way.
SEEDS = 1000
simulate: .venv/.project ## run replicas on seeded schedules of faults (SEEDS=n, SEED=k, MUTANTS=1, JOBS=n)
	@PYTHONPATH=.:tests exec .venv/bin/python -m simulation --seeds $(SEEDS) \
		$(if $(SEED),--seed $(SEED)) $(if $(MUTANTS),--mutants) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

# A round takes about two minutes, the load after the rounds another two. ARGS="--rate 300" asks
# less often, ARGS="--seconds 0" leaves the load out.
ROUNDS = 1
chaos: .venv/.project ## break real processes, and count what is lost (ROUNDS=n, SEED=k, JSON=file)
	@PYTHONPATH=.:tests GRPC_ENABLE_FORK_SUPPORT=0 exec .venv/bin/python -m chaos \
		--rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(if $(JSON),--json $(JSON)) $(ARGS)

# About twenty minutes. ARGS="--memory 'all run on'" is a third of it; --each: tenants of a kind.
drill: .venv/.project ## restore an older database under real brokers, and count who comes back
	@PYTHONPATH=.:tests GRPC_ENABLE_FORK_SUPPORT=0 exec .venv/bin/python -m chaos.restore $(ARGS)

# About nine minutes; the last row's numbers are the sums. ARGS="'Redis down'" is one of them,
# ARGS="--json lights.json" keeps all metrics that moved. Without a Prometheus on the PATH no alert is
# looked at; a broker's clock is put wrong by libfaketime, of Debian or of LIBFAKETIME.
lights: .venv/.project ## break each dependency in turn, and see which lights and alerts tell
	@PYTHONPATH=.:tests GRPC_ENABLE_FORK_SUPPORT=0 exec .venv/bin/python -m chaos.lights $(ARGS)

# What `make test` does for some seconds, with as many inputs as are wanted: each surface in turn says
# what it tried. An input that finds a defect goes into tests/fuzz/corpus, or becomes a test.
EXAMPLES = 5000
fuzz: .venv/.project ## send the broker whatever there is (EXAMPLES=n a surface, SEED=k)
	@FUZZ_EXAMPLES=$(EXAMPLES) $(if $(SEED),FUZZ_SEED=$(SEED)) exec .venv/bin/python -m pytest \
		tests/fuzz --capture=no --verbose $(ARGS)

# ARGS=--full takes more and larger pairs, ARGS="--only clear mtls" some figures only. A plot and all
# pairs are left in bench-results.
bench: .venv/.project ## measure what a token costs, each figure against a baseline
	@PYTHONPATH=.:tests GRPC_ENABLE_FORK_SUPPORT=0 exec .venv/bin/python -m bench $(ARGS)

lint: .venv/.project ## check style, types and the API
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy --strict broker tests \
		$(wildcard protos/*.py deploy/examples/*/*.py)
	@.venv/bin/python protos/generate.py --check

format: .venv/.project ## mend what can be mended without thinking
	@.venv/bin/python -m ruff check --fix-only .
	@.venv/bin/python -m ruff format .

proto: .venv/.project ## write broker/v1 anew from protos/
	@.venv/bin/python protos/generate.py $(ARGS)

# Extras stay in the lock: pip 23 looks past a pin without them at `coverage[toml]`, finds a newer
# version, and refuses it for want of a hash.
LOCK = .venv/bin/python -m uv --no-cache pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --no-annotate \
	--no-header --extra server $(ARGS)

lock: .venv/.project ## bring the lock files up to pyproject.toml (ARGS=--upgrade: newest versions)
	@$(LOCK) --output-file requirements.lock pyproject.toml
	@$(LOCK) --extra dev --output-file requirements-dev.lock pyproject.toml

# The base is named by its digest, or two builds of one commit differ. IMAGE is what the image is called.
IMAGE = token-broker:dev
image: ## build the container image (BASE=python:3.13-slim-bookworm@sha256:…, IMAGE=name)
	@case '$(BASE)' in *@sha256:*) ;; *) \
		echo 'Name a base by its digest: make image BASE=python:3.13-slim-bookworm@sha256:…'; exit 1;; \
	esac; \
	for engine in docker podman buildah; do \
		command -v "$$engine" >/dev/null 2>&1 && break; engine=; \
	done; \
	[ -n "$$engine" ] || { echo 'Install docker, podman or buildah (Debian: apt install podman).'; exit 1; }; \
	exec "$$engine" build --file deploy/Dockerfile --tag '$(IMAGE)' --build-arg BASE='$(BASE)' \
		--build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' broker/__init__.py)" \
		--build-arg REVISION="$$(git rev-parse HEAD)" \
		--build-arg SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" $(ARGS) .

clean: ## remove whatever was made here
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
	@find broker tests protos -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written last: what was interrupted is done again from the start (--clear). A Python is
# chosen by running it, because version managers put names in the way that do not run.
.venv/.packages: requirements-dev.lock
	@found=; lacking=; \
	for name in python3.14 python3.13 python3.12 python3.11 python3; do \
		"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			</dev/null >/dev/null 2>&1 || continue; \
		if "$$name" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1; \
			then found=$$name; break; fi; \
		lacking=$${lacking:-$$name}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$lacking" ]; then \
		echo "$$lacking has no venv module. Install it (Debian, Ubuntu: apt install $$lacking-venv)."; \
		exit 1; \
	elif [ -z "$$found" ]; then \
		echo 'No Python 3.11 or newer here. Install one, with its venv module'; \
		echo '(Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python).'; \
		exit 1; \
	fi; \
	echo "Setting up .venv with $$($$found --version)"; \
	"$$found" -m venv --clear .venv
	@echo 'Installing the locked packages, about a minute the first time'
	@$(PIP) --require-hashes --only-binary :all: -r requirements-dev.lock
	@printf '%s' "$$CLONE" > $@

.venv/.project: pyproject.toml .venv/.packages
	@$(PIP) --no-deps --no-build-isolation --no-index --editable .
	@touch $@
	@echo 'Ready.'
