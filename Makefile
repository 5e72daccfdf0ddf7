# make demo   train, evaluate and ask on the shipped sample: 1.2 GB to install, then four minutes, offline
# make app    a page on which one uploads an image and asks the shipped model
# make quick  the checks and the fast tests, about 95 s on two cores once mypy has its cache: the inner loop
# make test   the checks and make coverage, as CI runs them
# make coverage the complete test suite, with its coverage by module; fails below the gate
# make check  formatting, lint, types, import contracts, declared dependencies, word list
# make docs   the documentation site, into site/: links checked, reference generated from the code
# make dist   sdist and wheel, installed elsewhere and tried
# make lowest the base installation and the server with the lowest versions that pyproject.toml allows (needs uv)
# make shipped SLAKE=DIR  trains the model in the package again: about an hour
# make images every container, built and run without a Docker engine (needs root and Debian's buildah, podman, debootstrap)
# make clients client libraries of OpenAI's protocol, installed apart, ask a running server
# make page   builds the page from web/ into the package, types checked and tested (needs Node 20)
# make bench  every benchmark, both sides of each ratio in one run

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
QUICK  := tests/evaluation tests/data tests/models/guards tests/tools tests/test_cli.py tests/test_config.py \
          tests/test_io.py tests/test_readme.py tests/test_registry.py tests/test_schemas.py tests/test_text.py
COVERAGE := .cache/coverage.json
# Where `make clients` serves: any free port.
CLIENTS_PORT ?= 8765
# Per cent of the lines of src; make test fails below it.
COVERAGE_GATE := 95
SAMPLE := src/medical_vqa/assets/slake-mini

.PHONY: demo app page test quick coverage check docs dist lowest shipped images clients bench clean

demo: $(VENV)/.train
	$(BIN)/medical-vqa prepare slake-mini
	$(BIN)/medical-vqa train demo --fresh
	$(BIN)/medical-vqa predict runs/demo --split validation
	$(BIN)/medical-vqa report runs/demo/predictions-validation.jsonl
	$(BIN)/medical-vqa ask $(SAMPLE)/imgs/xmlab112/source.jpg "What modality is used to take this image?" --model runs/demo
	@echo
	@echo "Done. Open in a browser:  $(CURDIR)/runs/demo/report-validation.html"
	@echo "The model:                $(CURDIR)/runs/demo/bundle"
	@echo "Ask it something else:    $(BIN)/medical-vqa ask IMAGE \"QUESTION\" --model runs/demo"

app: $(VENV)/.app
	$(BIN)/medical-vqa app

page:
	cd web && npm ci && npm run check && npm test && npm run build

# The checks run at the same time as the tests, at a lower priority, and report after them.
test: $(VENV)/.dev
	@mkdir -p .cache
	nice $(MAKE) check >.cache/check.log 2>&1 & checks=$$!; $(MAKE) coverage; tests=$$?; \
	wait $$checks; checks=$$?; cat .cache/check.log; test $$tests$$checks = 00

quick: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow" $(QUICK)

# The second command prints the table and is the gate: with several workers the first would print one of them alone.
# The processes that the tests start read compiled modules, also where the environment says to write none.
coverage: $(VENV)/.dev
	@mkdir -p $(dir $(COVERAGE))
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m slipcover --json --out $(COVERAGE) -m pytest -n 2 --dist worksteal
	$(BIN)/python -m slipcover --merge $(COVERAGE) --out $(COVERAGE) --missing-width 40 --fail-under $(COVERAGE_GATE)

dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python tools/check_dist.py dist

lowest:
	$(PYTHON) tools/lowest.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/python tools/check_words.py

docs: $(VENV)/.docs
	$(BIN)/python tools/make_reference.py
	$(BIN)/zensical build --clean --strict

shipped: $(VENV)/.train
	$(PIP) -e '.[trunk]'
	$(BIN)/python tools/make_shipped.py --source $(SLAKE)

images: $(VENV)/.dev
	tools/try_images.sh

clients: $(VENV)/.app
	$(PYTHON) -m venv .cache/clients && .cache/clients/bin/pip install --quiet --no-deps -r tests/clients/requirements.txt
	PORT=$(CLIENTS_PORT) $(BIN)/medical-vqa serve & server=$$!; trap "kill $$server" EXIT; \
	until curl --silent --fail localhost:$(CLIENTS_PORT)/readyz >/dev/null; do kill -0 $$server && sleep 1 || exit 1; done; \
	.cache/clients/bin/python tests/clients/ask.py http://localhost:$(CLIENTS_PORT) $(SAMPLE)/imgs/xmlab112/source.jpg

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/grouped_training.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/train_throughput.py
	$(BIN)/python benchmarks/train_throughput.py --targets qformer
	$(BIN)/python benchmarks/answer_throughput.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/serve_throughput.py

# The stamps record what the environment contains; a changed pyproject.toml or constraints.txt installs again.
$(VENV)/.dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/.dev $(VENV)/.train $(VENV)/.app $(VENV)/.docs

$(VENV)/.train: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[train]'
	@touch $(VENV)/.train

$(VENV)/.docs: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[docs]'
	@touch $(VENV)/.docs

$(VENV)/.app: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[serve]'
	@touch $(VENV)/.app

clean:
	rm -rf runs build dist site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
