# make demo   install if needed, build the embedded capture, train every row of the story, write a report
# make test   install if needed, run the tests, a process a core
# make lint   ruff over the code and the notebooks
# make lab    JupyterLab on the notebooks
# make clean  remove caches and build leftovers; data/, runs/, reports/ and .venv/ stay
#
# PYTHON is the interpreter that .venv is made from; PIP_ARGS goes to `pip install`, for instance, for PyTorch
# without CUDA:  make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo test lint lab clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "fourdgs needs Python 3.11 to 3.13; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) \
		--constraint requirements.lock --editable '.[notebook,avatar,capture,sweep,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m fourdgs.demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check .

lab: $(VENV)/.installed
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints -o -name '*.egg-info' \) \
		-type d -print0 | xargs -0 rm -rf
