# Each target sets up .venv on a fresh machine; while the stamp is newer than what it depends on, that costs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.dev

.PHONY: demo test slow check format bench census docs papers gallery viewer

test slow census papers gallery: export OMP_NUM_THREADS = 1

demo: .venv/.demo  ## explain real photographs: pictures and a page under demo/
	$(BIN)/headwater demo

test: $(STAMP)  ## the default tests
	$(BIN)/python -m pytest -n 2 -m "not slow"

slow: $(STAMP)  ## the tests that take long
	$(BIN)/python -m pytest -n 2 -m slow

check: $(STAMP)  ## lint, format, types, direction of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measure the cost of explanations beside that of the bare model and of zennit
	$(BIN)/python -m benchmarks

census: $(STAMP)  ## explain every architecture at hand and count what does not balance; SAMPLE=60 for a sample
	$(BIN)/python -m benchmarks.census --jobs 2 $(if $(SAMPLE),--sample $(SAMPLE) --rows census-sample.jsonl --fresh,--table docs/census.csv)

papers: $(STAMP)  ## run the papers' experiments again, in minutes; SCALE=full for hours
	for name in earthquake filters overview review rnn; do $(BIN)/headwater reproduce $$name --scale $(or $(SCALE),quick) || exit 1; done

gallery: $(STAMP)  ## every method on six networks and real inputs, drawn into docs/images/gallery
	$(BIN)/python -m benchmarks.gallery

viewer:  ## build the viewer's page from viewer/ (needs node 20 or newer); what it builds is committed
	cd viewer && npm ci && npm run build

docs: $(STAMP)  ## build the documentation under site/; its examples run with the default tests
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs site

.venv/.%: pyproject.toml constraints-dev.txt
	@echo "installing headwater[$*] into .venv, for which pip may take minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints-dev.txt --editable ".[$*]"
	@touch $@
