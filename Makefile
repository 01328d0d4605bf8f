# make test        virtual environment, install, lint, tests
# make site        virtual environment, then the documentation's site, in site/
# make web         the page that keras_convmixer/web serves, of its sources in web/ (needs Node 20 or newer)
# make quickstart  virtual environment, install, then digits from training to a TFLite file
#
# PYTHON names the interpreter (3.11 to 3.13) that the virtual environment is made with.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := quickstart/digits

.PHONY: test lint site web quickstart clean

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

site: $(VENV)/.test
	$(BIN)/mkdocs build --strict

web:
	cd web && npm ci && npm run check && npm run build

quickstart: $(VENV)/.install
	$(BIN)/convmixer train --recipe digits --workdir $(RUN)
	$(BIN)/convmixer evaluate $(RUN)
	$(BIN)/convmixer export $(RUN) --format saved_model --out quickstart/saved_model
	$(BIN)/convmixer export $(RUN) --format tflite --quantize int8 --out quickstart/tflite
	$(BIN)/convmixer predict $(RUN) examples/digits/*.png --top 3
	@echo; echo "Made:"; du -sh $(RUN)/model.keras quickstart/saved_model quickstart/tflite/*.tflite

$(VENV)/.install: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "make: keras_convmixer needs Python 3.11 to 3.13, and PYTHON=$(PYTHON) is %d.%d" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.install
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) quickstart site
