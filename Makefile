# Every target sets up what it needs in .venv, so a fresh clone needs Python, git and make only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCALES := src/pyams_zmq/locales
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Version 2.0.0, to compare: its import name is the same, so it has an environment of its own, outside the tree.
OLD := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pyams_zmq/2.0.0
HUEY := $(dir $(OLD))huey
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test stress chaos soak screenshots coverage bench lint docs messages build clean

help: ## list what there is
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## run the demonstration application on http://localhost:6543
	@echo 'The pictures are on http://localhost:6543, the monitor on http://localhost:6543/zmq. Ctrl-C ends it.'
	@cd demo && exec ../$(BIN)/pserve development.ini

test: $(VENV)/.test ## run the tests (arguments: make test ARGS="-k name")
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadfile -m "not slow" $(ARGS)

stress: $(VENV)/.test ## run the life-cycle tests 20 times in a row
	@for n in $$(seq 20); do $(BIN)/python -m pytest -q -n 2 -m lifecycle || exit 1; done

chaos: $(VENV)/.test $(OLD)/bin/python $(HUEY)/bin/python ## attacks, beside 2.0.0, and kills, beside Huey (ARGS="--short", or names)
	@cd tests && ../$(BIN)/python -m chaos --old $(OLD)/bin/python --huey $(HUEY)/bin/python $(ARGS)

soak: $(VENV)/.test ## load a service for an hour, and see what it keeps (ARGS="--minutes 1")
	@cd tests && ../$(BIN)/python -m chaos.soak $(ARGS)

screenshots: $(VENV)/.test ## take the pictures in docs/images anew: needs a browser, and half a minute
	@cd tests && ../$(BIN)/python -m screenshots

coverage: $(VENV)/.test ## run the tests, the slow ones too, and report the coverage, child processes included
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest --numprocesses 4 --dist loadfile $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

bench: $(VENV)/.bench ## measure beside the others, and write the report into docs/benchmarks: ten minutes
	@$(BIN)/python -m bench $(ARGS)

lint: $(VENV)/.lint ## check style, types and the import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/.docs ## build the documentation into docs/_build
	@$(BIN)/python -m sphinx -E -a -W --keep-going -q -b html docs docs/_build
	@echo "Open docs/_build/index.html"

messages: $(VENV)/.test ## bring the translations up to date with the sources
	@$(BIN)/pybabel -q extract --no-default-keywords -k _ -c Translators: --add-location file --omit-header \
		--no-wrap -o $(LOCALES)/pyams_zmq.pot src
	@$(BIN)/pybabel -q update -D pyams_zmq -d $(LOCALES) -i $(LOCALES)/pyams_zmq.pot \
		--no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date --no-wrap
	@$(PIP) install --editable .

build: $(VENV)/.build ## build the sdist and the wheel into dist
	@$(BIN)/python -m build --quiet
	@$(BIN)/twine check --strict dist/*

clean: ## remove everything that was generated
	@rm -rf $(VENV) .bench .nox dist docs/_build demo/var .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.base: pyproject.toml hatch_build.py $(wildcard $(LOCALES)/*/LC_MESSAGES/*.po)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.demo: $(VENV)/.base demo/pyproject.toml
	@$(PIP) install --editable ./demo
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(PIP) install --group test --group browser
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	@$(PIP) install --group bench
	@touch $@

$(VENV)/.lint: $(VENV)/.base
	@$(PIP) install --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	@$(PIP) install --group docs
	@touch $@

$(VENV)/.build: $(VENV)/.base
	@$(PIP) install --group build
	@touch $@

$(OLD)/bin/python:
	@$(PYTHON) -m venv $(OLD)
	@$(OLD)/bin/python -m pip --quiet install pyams_zmq==2.0.0 || { rm -rf $(OLD); exit 1; }

$(HUEY)/bin/python:
	@$(PYTHON) -m venv $(HUEY)
	@$(HUEY)/bin/python -m pip --quiet install huey || { rm -rf $(HUEY); exit 1; }
