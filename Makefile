# `make` prints what can be made. Everything is set up under .venv/ by itself; nothing else is touched.
# What could not be had is named in the last lines; GLASSQ_REQUIRE=all makes it an error.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
export PREFIX DESTDIR LIBDIR BINDIR SHAREDIR
# beanstalkd is unpacked here where the system has none (tools/setup-beanstalkd)
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/beanstalkd/usr/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo example test conformance coverage test-system torture soak check format bench install uninstall deb docs man lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) ## the virtual environment, the locked dependencies and beanstalkd

$(LOCKED): requirements.lock requirements-fast.lock tools/setup-venv tools/setup-beanstalkd tools/setup-lib
	@tools/setup-venv $(PYTHON) $(VENV)
	@tools/setup-beanstalkd $(VENV)
	@touch $@

# this tree itself, editable; compat: its path before that of a script beside the clone, whose glassq/ is no package
$(READY): $(LOCKED) setup.py glassq/__init__.py tools/launchers
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@tools/launchers $(BIN)
	@touch $@

# what tests, checks and examples need besides
$(DEV): $(READY) requirements-dev.lock
	@echo "setup: installing the libraries of tests and checks" >&2
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# the last lines of what sets itself up
missing = @! test -s $(VENV)/missing || { echo "could not be had:"; sed 's/^/  /' $(VENV)/missing; } >&2

example: $(DEV) ## an App Engine program on glassq: tasks by taskqueue.add, worked by its own HTTP endpoint
	@$(BIN)/python examples/glassware/demo.py $(EXAMPLE_ARGS)
	$(missing)

demo: $(READY) ## the whole way on this machine: simulated Glass users share photos, glassq stores them
	@$(BIN)/glassq demo $(DEMO_ARGS)
	$(missing)

# Tests of real processes wait more than they compute: six at a time on two cores. What failed is run again, alone, and
# fails the target if it fails then, too: a test that needed that is named in the output, and is to be mended.
test: $(DEV) ## the tests, on real servers and processes on loopback
	@$(BIN)/python -m pytest -n 6 --dist worksteal $(TEST_ARGS) \
		|| $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(TEST_ARGS)
	$(missing)

conformance: $(DEV) ## what a queue's engine must do, each promise by its sentence (ENGINE=beanstalkd)
	@$(BIN)/python -m pytest tests/queues/conformance -v --durations=5 $(if $(ENGINE),-k $(ENGINE)) $(TEST_ARGS)
	$(missing)

# apart, as a tracer in every process takes twice the time
coverage: $(DEV) ## the same, and what they leave out
	@$(BIN)/python -m pytest -n 4 --dist worksteal --cov --cov-report=term:skip-covered $(TEST_ARGS)

test-system: $(DEV) ## package, units and nginx for real, in a container booted with systemd (as root)
	@tools/setup-system
	@$(BIN)/python -m pytest tests/system $(TEST_ARGS)

torture: $(DEV) ## everything killed, frozen, cut and filled up under load, then counted (SECONDS=420 SEED=n OUTAGE=20)
	@$(BIN)/python -m tests.chaos.torture $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(OUTAGE),--outage $(OUTAGE)) $(TORTURE_ARGS)

soak: $(DEV) ## steady load; fails where any process holds more and more (MINUTES=10)
	@$(BIN)/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(SOAK_ARGS)

check: $(DEV) ## the one gate: format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python -m mypy
	@for script in tools/manual.py tools/settings_docs.py; do $(BIN)/python -m mypy --no-error-summary $$script || exit 1; done

format: $(DEV) ## put the code into the form that `make check` expects
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(DEV) ## speed and memory, as ratios against plain programs measured in the same run
	@$(BIN)/python bench/run.py $(BENCH_ARGS)

install: ## /opt/glassq, units, /etc/glassq (PREFIX, DESTDIR, LIBDIR, BINDIR, SHAREDIR); see docs/installing.md
	@PYTHON="$(PYTHON)" tools/install

uninstall: ## take it away again; settings, secrets and queue stay
	@tools/uninstall

deb: ## dist/glassq_*.deb of this tree, for this machine's distribution
	@tools/deb

docs: $(DEV) ## docs/settings.md anew, from the settings and conf/glassq.toml
	@$(BIN)/python tools/settings_docs.py

man: $(DEV) ## dist/man/: a manual page for each command and daemon, and for glassq.toml
	@rm -rf dist/man
	@$(BIN)/python tools/manual.py dist/man

lock: $(DEV) ## pin every dependency anew, with hashes (needs uv)
	@tools/lock

clean: ## remove what setup, tests and trials made; what `glassq dev` keeps in var/ stays
	rm -rf $(VENV) var/demo var/example var/torture var/soak dist build *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
