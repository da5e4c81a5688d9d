# Every target sets up the virtual environment it needs; the second time that takes no time.
# Only python3 and a package registry (pip's own settings) are assumed.

PYTHON ?= python3
VENV ?= .venv
DATA ?= ../shared/data
# Of tests: more than two cores have, for some wait for servers.
WORKERS ?= 3
SCRATCH ?= /tmp
# A Python that has what benchmarks/rivals.py runs; none: rivals are left out.
RIVALS ?=
# A folder that keeps the environments of make owners; none: they are made anew.
OWNERS ?=

RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PYTEST := $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 30 -r fEs

export DO_NOT_TRACK ?= 1
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS ?= 120
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Set, every process of a test would compile the package anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo explore parts test check lint measure mutants kills chaos week everywhere damage fuzz owners release-check real grow fetch-demo compare leaderboard docs docs-site pictures bench bench-full

help:  ## print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	  | while IFS='|' read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done

demo: $(READY)  ## simulate a study in ./demo, mine it, say where the report is
	$(RUN) flows/mine.py demo
	@echo "Report: $(CURDIR)/demo/study/report.html"

explore: $(READY)  ## serve the demo to a browser; it is made where it is absent
	test -f demo/study/report.html || $(MAKE) demo
	$(VENV)/bin/dglzarr serve demo/study

parts:  ## install Debian's SLURM, PostgreSQL, R, Chromium, faketime; tests skip what is not there
	@sh tests/parts.sh

test: $(READY)  ## run every test, also those with real Dask, Prefect and TensorFlow
	$(PYTEST)

check: lint  ## lint, types, import rules and the fast tests
	$(PYTEST) -m "not slow"

lint: $(READY)  ## lint, types and import rules alone
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

measure: $(READY)  ## print modules, functions, imports and tests in numbers, also to docs/design.md
	$(RUN) tests/measure.py

mutants: $(READY)  ## seed faults into kernels/ and store.py; each must turn a test red
	$(RUN) tests/mutants.py

kills: $(READY)  ## kill -9 workers, scheduler and runs at 20 moments; the results must be the same
	$(RUN) tests/kills.py --trials 20

chaos: $(READY)  ## 300 kills and other faults in every stage, on disk, cluster and bucket; takes long
	$(RUN) tests/chaos.py --faults 300

week: $(READY)  ## a week of the nightly job in fast motion: files, faults, an upgrade
	$(RUN) tests/week.py

everywhere: $(READY)  ## the demo on SLURM, TLS workers, an S3 server, by the wheel, from a clone: same bytes
	$(RUN) tests/everywhere.py

damage: $(READY)  ## damage every object of a small study in five ways; verify must find all
	$(RUN) tests/damage.py

fuzz: $(READY)  ## read 100,000 mutated files; each must be clean or refused in one line, and values right
	$(RUN) tests/fuzz.py

owners: $(READY)  ## open every export in scanpy, cmapPy, R, polars and zarrita; OWNERS=FOLDER keeps them
	$(RUN) tests/owners.py $(if $(OWNERS),--keep $(OWNERS))

release-check: $(READY)  ## build wheel and sdist into dist/, try them and all supported environments; minutes
	$(RUN) tests/release.py

real: $(READY)  ## mine the real series in DATA (default ../shared/data) into ./real
	$(RUN) flows/mine.py deploy/settings/real.toml --folder $(DATA) --set root=$(CURDIR)/real

grow: $(READY)  ## mine the real series but two into ./grown, grow by the two, show what changed
	$(RUN) benchmarks/grow_real.py --folder $(DATA) --root $(CURDIR)/grown

fetch-demo: $(READY)  ## mine from accessions alone, of a server here that misbehaves, into ./fetched
	$(RUN) benchmarks/fetch_demo.py --root $(CURDIR)/fetched --data $(DATA)

compare: $(READY)  ## cross-validate panels of 50 to 943 probes on the series in DATA, into ./real
	$(VENV)/bin/dglzarr compare deploy/settings/real.toml --folder $(DATA) --set root=$(CURDIR)/real

leaderboard: $(READY)  ## panels by every selector on the series in DATA, into ./leaderboard and docs/leaderboard.svg
	$(RUN) benchmarks/leaderboard.py --folder $(DATA) --root $(CURDIR)/leaderboard --rivals "$(RIVALS)"

docs: $(READY)  ## write docs/stores.md and docs/settings.md from the declarations
	$(RUN) docs/make_stores.py
	$(RUN) docs/make_settings.py

docs-site: $(READY)  ## build the pages of docs/ into build/site; a broken link fails
	$(RUN) -m sphinx -W --keep-going -q -d build/doctrees docs build/site
	@echo "Site: $(CURDIR)/build/site/index.html"

pictures: $(READY)  ## take docs/pictures of the demo, in Chromium
	$(RUN) -m docs.make_pictures demo/study

bench: $(READY)  ## run the benchmarks; each prints JSON lines
	set -e; for script in benchmarks/bench_*.py; do $(RUN) $$script; done

bench-full: $(READY)  ## the paper's compendium once, 129,158 x 22,268: about 35 GB, 45 free, in SCRATCH
	$(RUN) benchmarks/full_size.py --scratch $(SCRATCH)

$(READY): pyproject.toml constraints.txt
	@echo "Installing dglzarr and what it needs into $(VENV), once: this takes minutes."
	$(PYTHON) -m venv $(VENV)
	@( n=0; while sleep 10; do n=$$((n + 10)); echo "still installing, $$n s"; done ) & ticker=$$!; \
	  trap 'kill $$ticker' EXIT; \
	  $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@echo "Installed."
	@touch $@
