# xrt_nb: `make` lists the targets. Needs Python 3.11 or newer (with venv), make and git, and nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/sh
export PYTHON
PYTHON ?=
WORKERS ?= 2
DEV := .venv
DEMO := .venv-demo
PY := $(DEV)/bin/python
RUN := demo_run
OTHER_CPU := $(shell grep -qsm1 avx2 /proc/cpuinfo && echo OPENBLAS_CORETYPE=Haswell)

# An environment is whole when its stamp is there: .locked after the pinned packages, .installed after the project itself.
# A changed lock rebuilds the environment, a changed settings.ini or setup.py only installs the project again.
INSTALL = -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation --use-pep517 --editable .

$(DEV)/.locked: requirements/dev-lock.txt
	@tools/venv.sh $(DEV) $<
	@touch $@

$(DEMO)/.locked: requirements/demo-lock.txt
	@tools/venv.sh $(DEMO) $<
	@touch $@

%/.installed: %/.locked setup.py settings.ini
	@rm -f $@
	@$*/bin/python $(INSTALL)
	@touch $@

.SECONDARY: $(DEV)/.locked $(DEMO)/.locked

##@ Use
.PHONY: demo
demo: $(DEMO)/.installed ## install what the library needs and run the default case on the built-in archive
	$(DEMO)/bin/xrt-nb demo --out $(RUN)

##@ Develop
.PHONY: dev lab export clean-nbs readme
dev: $(DEV)/.installed ## make the development environment in .venv
lab: dev ## open the notebooks in JupyterLab
	cd nbs && ../$(DEV)/bin/jupyter lab
export: dev ## notebooks -> library (deletes xrt_nb/ first, so that nothing orphaned stays)
	$(PY) tools/parity.py --write library
clean-nbs: dev ## take counters and stray metadata out of the notebooks
	$(PY) tools/parity.py --write notebooks
readme: dev ## nbs/index.ipynb -> README.md
	$(PY) tools/parity.py --write readme

##@ Check
.PHONY: test test-slow test-bare parity lint
test: parity ## parity of notebooks and library, then every notebook and every test that is not slow
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)
test-slow: dev ## what takes longer: fuzzing in depth, many kills, oldest versions; then everything again without real data
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m slow $(ARGS)
	$(MAKE) --no-print-directory test-bare
# the state of most machines: no real data beside the project, another processor (where this one can play it); left out is
# what neither of the two can touch: windows, services, files that are killed or broken
BARE := $(addprefix --ignore tests/test_,browser.py catalogs.py catalogs_tap.py site.py repository.py labels.py store.py app.py desk_fuzz.py \
    hostile_answers.py samp.py data_fuzz.py array_fuzz.py fits_regions.py fits_hostile.py counterparts.py products.py support.py bounds.py \
    house.py style.py pictures.py scale.py)
BARE += -k "not full_disk and not two_at_once and not 07b_scale and not 08e_app"
test-bare: dev ## every notebook and test of numbers again, without real data and with another processor's arithmetic
	XRT_NB_SHARED=$(CURDIR)/no-real-data $(OTHER_CPU) $(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(BARE) $(ARGS)
parity: dev ## library, README and clean notebooks are what the notebooks generate
	$(PY) tools/parity.py
lint: dev ## ruff on the exported library and the tools
	$(DEV)/bin/ruff check xrt_nb tools tests docs benchmarks setup.py
	$(PY) tools/check_cells.py

##@ Make
.PHONY: docs bench lock wheel
docs: dev ## the documentation site, in _site/
	$(PY) docs/make_site.py --out _site
bench: dev ## run the benchmarks (minutes)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(PY) $$script || exit 1; done
lock: ## requirements/*-lock.txt from settings.ini (UPGRADE=1 moves to the newest versions)
	$(or $(PYTHON),python3) tools/lock.py $(if $(UPGRADE),--upgrade)
wheel: dev ## a wheel of the library, in dist/
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --use-pep517 --wheel-dir dist .

##@ Tidy
.PHONY: clean help
clean: ## delete everything made by make
	rm -rf $(DEV) $(DEMO) _site _proc build dist $(RUN) *.egg-info .pytest_cache .ruff_cache .hypothesis
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
