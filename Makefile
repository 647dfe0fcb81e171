# Everything a newcomer runs. Needs make and Python 3.10 or newer: make PYTHON=python3.12 install
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTFLAGS ?= -n auto --dist worksteal
RUNFLAGS ?= --quick --rounds 6 --strategy mmap_cache,pmdcache --workload python-json

.PHONY: help install run reference-run reference-report sweep sweep-report scaling scaling-report compare-shows kernel-judge floors test lint docs docs-tables format dist clean

help:
	@echo "make install   an environment in $(VENV): benchframe (editable) and the tools for tests and lint"
	@echo "make run       rbtree, mmap_cache and pmdcache on a recorded trace: ends in a latency table and a report"
	@echo "make reference-report   reports/reference anew from its committed results; make reference-run measures them anew"
	@echo "make sweep     reports/sweep measured anew: every index on 6 to 1 000 000 VMAs (about 12 minutes, 4 GB)"
	@echo "make sweep-report      reports/sweep and docs/sweep.png anew from its committed results"
	@echo "make scaling   reports/scaling simulated anew: eight strategies on 1 to 128 CPUs (some minutes of CPU time)"
	@echo "make scaling-report    reports/scaling and docs/scaling.png anew from its committed results"
	@echo "make compare-shows   what compare and gate say of real runs: the same, slower, not comparable (about 4 minutes)"
	@echo "make kernel-judge    rbtree, maple and the oracle beside the kernel's own files, from Debian (SOURCES=DIR: from there)"
	@echo "make test      the test suite, doctests included (TESTFLAGS='$(TESTFLAGS)')"
	@echo "make floors    a fresh environment with the lower bound of every dependency, and a short run in it"
	@echo "make docs-tables   tables in docs/ that are made from the code"
	@echo "make lint      ruff and mypy"
	@echo "make docs      the documentation site in dist/site; needs no network"
	@echo "make format    let ruff rewrite the sources"
	@echo "make dist      wheel and sdist in dist/"
	@echo "make clean     remove the environment and what tools left behind"

install: $(STAMP)

# Entry points are frozen at install, so a change of pyproject.toml installs again.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "benchframe needs Python 3.10 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "benchframe and its tools go into $(VENV); this takes about a minute"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@# pip compiles what it copies, not what stays here; with PYTHONDONTWRITEBYTECODE each start would do it again
	$(BIN)/python -m compileall -q benchframe plugins workloads
	@touch $@

run: $(STAMP)
	$(BIN)/benchframe run $(RUNFLAGS)
	$(BIN)/benchframe report last

# reports/reference.toml says what it is made of; then three studies.
reference-run: $(STAMP)
	rm -rf reports/new
	$(BIN)/benchframe run reports/reference.toml -o reports/new
	rm -rf reports/reference
	mv reports/new/* reports/reference
	rmdir reports/new
	$(BIN)/benchframe explain rbtree pmdcache --workload python-json --save reports/reference
	$(BIN)/benchframe breakeven rbtree pmdcache --save reports/reference
	$(BIN)/benchframe layout --strategy pmdcache --workload python-json --save reports/reference
	$(MAKE) reference-report

reference-report: $(STAMP)
	$(BIN)/benchframe report reports/reference --format html,markdown,mail,csv,latex,svg

sweep: $(STAMP)
	rm -rf reports/new
	$(BIN)/benchframe run reports/sweep.toml -o reports/new
	rm -rf reports/sweep
	mv reports/new/* reports/sweep
	rmdir reports/new
	$(MAKE) sweep-report

sweep-report: $(STAMP)
	$(BIN)/benchframe report reports/sweep --format html,markdown
	$(BIN)/benchframe report reports/sweep --chart sweep --format png
	mv reports/sweep/charts/sweep.png docs/sweep.png

scaling: $(STAMP)
	rm -rf reports/new
	$(BIN)/benchframe simulate reports/scaling.toml -o reports/new
	rm -rf reports/scaling
	mv reports/new/* reports/scaling
	rmdir reports/new
	$(MAKE) scaling-report

scaling-report: $(STAMP)
	$(BIN)/benchframe report reports/scaling --format html,markdown,png
	mv reports/scaling/charts/simulate-rbtree-maple-rcu-pmdcache-rcu-spf-mmseq.png docs/scaling.png
	rm -r reports/scaling/charts

compare-shows: $(STAMP)
	$(BIN)/python benchmarks/compare_shows.py

SOURCES ?= build/kernel
JUDGEFLAGS ?=
kernel-judge: $(STAMP)
	@test "$(SOURCES)" != build/kernel || tools/kernel_sources.sh build/kernel linux-source-6.1 linux-source-6.12
	$(BIN)/benchframe oracle --sources $(SOURCES) $(JUDGEFLAGS)

floors: $(STAMP)
	$(BIN)/python tools/floors.py

test: $(STAMP)
	$(BIN)/python -m pytest $(TESTFLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-tables: $(STAMP)
	$(BIN)/python tools/docs_tables.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(STAMP)
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
