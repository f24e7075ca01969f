# `make` prints what can be made. Everything is set up under .venv/ by itself; nothing else is touched.
# What could not be had is named in the last lines; GLASSQ_REQUIRE=all makes it an error.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
POSTGRES := $(VENV)/.postgres
DEV := $(VENV)/.dev
REWRITTEN := $(VENV)/.rewritten
export PREFIX DESTDIR LIBDIR BINDIR SHAREDIR
# beanstalkd is unpacked here where the system has none (tools/setup-beanstalkd)
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/beanstalkd/usr/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo example test conformance coverage test-system torture torture-move failover powercut soak keys \
	thorough mutations check format bench bench-backlog bench-console bench-journal bench-programs bench-sources bench-tasks \
	bench-peers bench-postgres bench-lanes bench-large install uninstall deb docs pictures man lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) ## install the virtual environment, the locked dependencies and beanstalkd under .venv/

$(LOCKED): requirements.lock requirements-fast.lock tools/setup-venv tools/setup-beanstalkd tools/setup-lib
	@tools/setup-venv $(PYTHON) $(VENV)
	@tools/setup-beanstalkd $(VENV)
	@touch $@

# this tree itself, editable; compat: its path before that of a script beside the clone, whose glassq/ is no package
$(READY): $(LOCKED) setup.py glassq/__init__.py tools/launchers
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@tools/launchers $(BIN)
	@touch $@

# what a queue on PostgreSQL needs besides, and a server where the system has none
$(POSTGRES): $(READY) requirements-postgres.lock requirements-postgres-server.lock tools/setup-postgres
	@tools/setup-postgres $(VENV)
	@touch $@

# what tests, checks and examples need besides
$(DEV): $(POSTGRES) requirements-dev.lock requirements-aws.lock tools/setup-browser
	@echo "setup: installing the libraries of tests and checks" >&2
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements-aws.lock -r requirements-dev.lock
	@tools/setup-browser $(VENV)
	@touch $@

# pytest compiles the tests in its own way, which takes longer than many of them: once, not in each of its processes
$(REWRITTEN): $(DEV) $(wildcard tests/*.py tests/*/*.py)
	@$(BIN)/python -m pytest --collect-only -qq > /dev/null || true
	@touch $@

# the last lines of what sets itself up
missing = @! test -s $(VENV)/missing || { echo "could not be had:"; sed 's/^/  /' $(VENV)/missing; } >&2

example: $(DEV) ## run an App Engine program on glassq: taskqueue.add, and an HTTP endpoint that handles the tasks
	@$(BIN)/python examples/glassware/demo.py $(EXAMPLE_ARGS)
	$(missing)

demo: $(READY) $(if $(filter postgres,$(ENGINE)),$(POSTGRES)) ## run everything on this machine: simulated Glass users share photos, glassq stores them (ENGINE=postgres)
	@$(BIN)/glassq demo $(if $(ENGINE),--engine $(ENGINE)) $$([ ! -t 1 ] || echo --keep) $(DEMO_ARGS)
	$(missing)

# Tests of real processes wait, too: six at a time on two cores. What failed is run again, alone, and fails the target if
# it fails then, too: whoever builds glassq is not stopped by a deadline that passed while the whole machine stood still.
# The last lines name the slowest tests, and those that were run a second time. Each of these is a defect to be mended:
# mostly a race, of the test or of glassq itself.
test: $(DEV) $(REWRITTEN) ## the tests, on real servers and processes on loopback
	@$(BIN)/python -m pytest --cache-clear -n 6 --dist worksteal --durations 10 $(TEST_ARGS) \
		|| $(BIN)/python -m pytest --last-failed --last-failed-no-failures none --durations 10 $(TEST_ARGS)
	$(missing)

conformance: $(DEV) ## what a queue's engine must do, each promise by its sentence (ENGINE=beanstalkd, postgres)
	@$(BIN)/python -m pytest tests/queues/conformance -v -n 4 --dist worksteal --durations=5 $(if $(ENGINE),-k $(ENGINE)) $(TEST_ARGS)
	$(missing)

# apart, as a tracer in every process takes twice the time
coverage: $(DEV) $(REWRITTEN) ## the same, and what they leave out
	@$(BIN)/python -m pytest -n 6 --dist worksteal --cov --cov-report=term:skip-covered $(TEST_ARGS)

test-system: $(DEV) ## test package, units and nginx in a container booted with systemd (as root)
	@tools/setup-system
	@$(BIN)/python -m pytest -o faulthandler_timeout=600 tests/system $(TEST_ARGS)

torture: $(DEV) ## kill, freeze, cut and fill up everything under load, then count (SECONDS=420 SEED=n OUTAGE=20; ENGINE=postgres: three nodes)
ifeq ($(ENGINE),postgres)
	@$(BIN)/python -m tests.chaos.nodes $(TORTURE_ARGS)
else
	@$(BIN)/python -m tests.chaos.torture $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(OUTAGE),--outage $(OUTAGE)) $(TORTURE_ARGS)
endif

torture-move: $(DEV) ## move 20,000 deliveries from beanstalkd to PostgreSQL and back while pings come, then count (TORTURE_ARGS)
	@$(BIN)/python -m tests.chaos.moving $(TORTURE_ARGS)

failover: $(DEV) ## what an operator sees while the primary of three PostgreSQL nodes dies and another is promoted: a transcript
	@$(BIN)/python -m tests.chaos.failover $(TORTURE_ARGS)

powercut: $(DEV) ## cut the power at 200 moments of a recorded run, and look for every acknowledged ping (SECONDS=20 SEED=n; needs cc)
	@$(BIN)/python -m tests.powercut.powercut $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(POWERCUT_ARGS)

soak: $(DEV) ## run a steady load; fail if a process keeps growing (MINUTES=10)
	@$(BIN)/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(SOAK_ARGS)

keys: $(DEV) ## work 100,000 deliveries of 1,000 keys while children are killed: never two of one key at once (DELIVERIES=n SEED=n)
	@$(BIN)/python -m tests.chaos.keys $(if $(DELIVERIES),--deliveries $(DELIVERIES)) $(if $(SEED),--seed $(SEED)) \
		$(KEYS_ARGS)

check: $(DEV) ## check format, lint and types: the one gate
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python -m mypy
	@for script in tools/manual.py tools/settings_docs.py tools/senders_docs.py tools/terminals.py; do $(BIN)/python -m mypy --no-error-summary $$script || exit 1; done

format: $(DEV) ## format the code as `make check` expects it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

thorough: $(DEV) $(REWRITTEN) ## the tests of chance, with twenty times as many examples, and those of each step, with all
	@$(BIN)/python -m pytest -o faulthandler_timeout=3600 --hypothesis-profile=thorough -n 2 --dist worksteal -m hypothesis $(TEST_ARGS)
	@$(BIN)/python -m pytest -o faulthandler_timeout=3600 --hypothesis-profile=thorough -n 2 tests/queues/test_state_machine.py tests/queues/conformance/test_state_machine.py \
		tests/journal/test_faults.py tests/bodies/test_kills.py

mutations: $(DEV) ## spoil 20,000 right pings of all kinds: nothing wrong is taken, and nothing is answered with 5xx (MANY=n SEED=n)
	@GLASSQ_MUTATIONS=$(or $(MANY),20000) $(if $(SEED),GLASSQ_SEED=$(SEED)) $(BIN)/python -m pytest tests/intake/test_mutations.py

bench-sources: $(DEV) ## pings of 1 kB acknowledged at full speed, Mirror's and GitHub's in turn: what verification costs
	@$(BIN)/python bench/sources.py

bench-tasks: $(DEV) ## tasks a second over HTTP beside pings a second, 32 connections each
	@$(BIN)/python bench/tasks_http.py

bench-journal: $(DEV) ## an intake journal with 1,000,000 records: start, look, moving on, and pings beside (RECORDS=n)
	@$(BIN)/python -m bench.journal $(RECORDS)

bench-backlog: $(DEV) ## acknowledged and drained with 1,000,000 waiting, beside an empty queue
	@PATH=$(BIN):$$PATH $(BIN)/python bench/backlog.py $(BENCH_ARGS)

bench: $(DEV) ## measure speed and memory, as ratios to plain programs in the same run
	@$(BIN)/python bench/run.py $(BENCH_ARGS)

bench-console: $(DEV) ## what the console costs with 100,000 buried: its pages, its memory, the pool's drain beside it
	@PATH=$(BIN):$$PATH $(BIN)/python bench/console.py $(BENCH_ARGS)

bench-postgres: $(DEV) ## PostgreSQL as the queue, as ratios to a plain psycopg loop of the same statements
	@$(BIN)/python -m bench.postgres $(BENCH_ARGS)

bench-programs: $(DEV) ## programs (exec:) that a pool runs per second
	@PATH=$(BIN):$$PATH $(BIN)/python bench/programs.py

bench-lanes: $(DEV) ## handlers that wait, many at once in two lane children: async, and a URL; speed and memory
	@PATH=$(BIN):$$PATH $(BIN)/python bench/lanes.py

bench-large: $(DEV) ## the memory of a push of 25 MB, and small pings while 200 senders push 1 MB each
	@PATH=$(BIN):$$PATH $(BIN)/python bench/large.py

bench-peers: $(DEV) ## the same work by other job queues (Huey, Celery, BullMQ ...) in turn; writes docs/comparison.md
	@tools/setup-peers $(VENV) $(VENV)/peers
	@$(BIN)/python bench/peers.py $(VENV)/peers $(BENCH_ARGS)

install: ## install /opt/glassq, units, /etc/glassq (PREFIX, DESTDIR, LIBDIR, BINDIR, SHAREDIR); see docs/installing.md
	@PYTHON="$(PYTHON)" tools/install

uninstall: ## remove it; keeps settings, secrets and queue
	@tools/uninstall

deb: ## build dist/glassq_*.deb of this tree, for this machine's distribution
	@tools/deb

docs: $(DEV) ## write docs/settings.md from the settings and conf/glassq.toml, and the list of senders in docs/sources.md
	@$(BIN)/python tools/settings_docs.py
	@$(BIN)/python tools/senders_docs.py

pictures: $(DEV) ## write docs/*.svg and docs/console/*.png: what terminals and the console show of real runs
	@$(BIN)/python tools/terminals.py
	@tools/setup-fonts $(VENV)
	@$(BIN)/python tools/screenshots

man: $(DEV) ## write dist/man/: a manual page for each command and daemon, and for glassq.toml
	@rm -rf dist/man
	@$(BIN)/python tools/manual.py dist/man

lock: $(DEV) ## pin every dependency again, with hashes (needs uv)
	@tools/lock

clean: ## remove the files of setup, tests and trials; keeps the var/ of `glassq dev`
	rm -rf $(VENV) var/demo var/example var/torture var/powercut var/soak dist build *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
