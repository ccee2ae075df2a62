# Everything the course needs is installed in .venv, and only there. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# A Python 3.11 to 3.13 to make .venv with, for example PYTHON=/usr/bin/python3.12.
# Left empty, the first suitable one on the PATH is taken.
PYTHON ?=
# The port of `make serve`, the notebooks of `make notebooks`, the new address of `make set-repository`.
PORT ?= 8000
NOTEBOOKS ?= notebooks/*.ipynb
URL ?=

PY := .venv/bin/python
SITE := _build/html
# Files whose dates say what was set up, and from what: a second run repeats nothing.
TOOLS := .venv/.tools
PACKAGES := .venv/.packages

# A reader's own settings must not change what is installed, built or compared.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PYTHONNOUSERSITE := 1
export JUPYTER_PREFER_ENV_PATH := 1

# A Python that is named is looked at each time, even when .venv is already made.
check-python:
	@$(if $(PYTHON),PYTHON='$(PYTHON)' .ci/setup.sh check,:)

$(TOOLS): .ci/setup.sh | check-python
	@PYTHON='$(PYTHON)' .ci/setup.sh tools
	@touch $@

$(PACKAGES): requirements.lock pyproject.toml $(TOOLS)
	@.ci/setup.sh packages
	@touch $@

# `-W -n`: any warning, broken references among them, ends the build. The site is built anew each
# time, since Sphinx repeats no warning for a page that it takes from its cache.
define build_site
@rm -rf $(SITE) _build/.doctrees
.venv/bin/jupyter-book build . -W -n --keep-going --all -q
$(PY) tools/check_site.py $(SITE)
endef

.PHONY: check-python help setup book pdf serve test colab newest lint notebooks solutions measure claims fuzz faults mutants lock set-repository clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(PACKAGES) ## only install the packages in .venv (about 6 GB)

book: $(PACKAGES) ## build the site from the notebooks' stored outputs
	$(build_site)
	@echo
	@echo "The site is in $(SITE). To read it: make serve, then open http://localhost:$(PORT)"
	@$(PY) tools/set_repository.py --hint

$(SITE)/index.html:
	@$(MAKE) book

pdf: $(PACKAGES) $(SITE)/index.html ## print the site as one PDF, _build/course.pdf (needs Chromium)
	$(PY) tools/make_pdf.py $(SITE) _build/course.pdf
	@echo "The PDF is _build/course.pdf; the site's front page has a link to a copy of it."

serve: $(PACKAGES) $(SITE)/index.html ## serve the site on localhost (PORT=8000)
	@echo "Open http://localhost:$(PORT) and stop with Ctrl+C."
	@$(PY) tools/serve_site.py $(SITE) $(PORT)

test: $(PACKAGES) ## lint, build the site with warnings as errors, run all tests and all notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(build_site)
	SRGAN_REQUIRE_SITE=1 $(PY) -m pytest tests/
	$(PY) -m pytest --nbval notebooks/

colab: $(PACKAGES) ## run all notebooks as Colab would, beside other versions (about 6 GB more)
	$(PY) -m pytest -m colab --durations=0 tests/test_colab.py

# What follows returns to the lock's packages: the stamp is taken away.
newest: $(TOOLS) ## run `make test` with the newest releases of all packages, without the lock
	@rm -f $(PACKAGES)
	@.ci/setup.sh newest
	@touch $(PACKAGES)
	@$(MAKE) test; status=$$?; rm -f $(PACKAGES); exit $$status

lint: $(PACKAGES) ## correct what ruff can correct and name the rest
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(PACKAGES) ## run the notebooks and store their outputs (NOTEBOOKS="notebooks/03*.ipynb")
	$(PY) tools/run_notebooks.py $(NOTEBOOKS)

solutions: $(PACKAGES) ## write notebooks/solutions/ from the solutions that the book folds
	$(PY) tools/write_solutions.py

measure: $(PACKAGES) ## measure the notebooks' times and memory, and write the page that shows them
	$(PY) benchmarks/measure_notebooks.py

claims: $(PACKAGES) ## write the page of claims and their sources anew from book/claims.yml
	$(PY) tools/claims.py

fuzz: $(PACKAGES) ## give the readers more than 100,000 broken inputs, and count (half an hour)
	$(PY) tools/fuzz.py

faults: $(PACKAGES) ## kill training 50 times, fill disks, cut checkpoints, and count (minutes)
	$(PY) tools/faults.py

mutants: $(PACKAGES) ## change the code in many places, and count what no test notices (half an hour)
	$(PY) tools/mutants.py

# Pins stay where they still fit; to renew them all, remove requirements.lock first.
lock: $(TOOLS) ## write requirements.lock and environment.yml anew from pyproject.toml
	$(PY) -m uv pip compile --universal --fork-strategy fewest --python-version 3.11 --all-extras \
	  pyproject.toml -o requirements.lock --no-header --no-annotate --quiet
	$(PY) tools/write_environment.py

set-repository: $(TOOLS) ## write the repository's address where it is needed (URL=https://...)
	@$(PY) tools/set_repository.py '$(URL)'

clean: ## remove the site and the tools' caches
	rm -rf _build build .pytest_cache .ruff_cache *.egg-info
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 \
	  | xargs -0 rm -rf

distclean: clean ## remove .venv too
	rm -rf .venv
