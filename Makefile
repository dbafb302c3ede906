# `make demo` and `make test` need nothing but Debian, Python >= 3.11 and this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core fonts-inter poppler-utils
# Of the tests alone: a browser for the HTML report, a second opinion on PDF files, a software key store
TEST_PACKAGES := chromium chromium-driver qpdf softhsm2
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-thorough notebooks check bench bench-report bench-peers bench-tiles bench-calibration lock samples clean

demo: $(VENV)/ready
	$(BIN)/explainvad demo --out demo
	@echo "The report: $(CURDIR)/demo/report/report.pdf"

test: APT_PACKAGES += $(TEST_PACKAGES)
test: $(VENV)/ready check .system
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# With what takes long: the demo with its own settings, commands killed at fifty moments each
test-thorough: APT_PACKAGES += $(TEST_PACKAGES)
test-thorough: $(VENV)/ready .system
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --thorough

# Executes the notebooks, and asserts that their conclusions agree with their numbers; `make test` does for the shorter ones
notebooks: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --thorough tests/test_notebooks.py -k test_a_notebook
	@echo "Executed: $(CURDIR)/build/notebooks"

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/ready
	$(BIN)/python tests/benchmarks/embedded.py
	$(BIN)/python tests/benchmarks/onnx_backbone.py
	$(BIN)/python tests/benchmarks/lot_statement.py
	$(BIN)/python tests/benchmarks/tail_extension.py
	$(BIN)/python tests/benchmarks/metrics_scale.py
	$(BIN)/python tests/benchmarks/explanation_speed.py

# PDF reports of up to 5,000 pages, against one document that is not divided
bench-report: $(VENV)/ready
	$(BIN)/python tests/benchmarks/report_scale.py

# Against anomalib, in an environment of its own; then the README's comparison section is written
PEER_BENCHMARKS := coreset patchcore winclip padim_efficientad reconstruction_parity patch_index metrics_parity profiles
bench-peers: $(VENV)/ready build/peer/ready
	$(BIN)/python tests/benchmarks/coreset.py --stream 4000
	for name in $(PEER_BENCHMARKS); do $(BIN)/python tests/benchmarks/$$name.py || exit 1; done
	$(BIN)/python tests/benchmarks/comparison.py

build/peer/ready:
	$(PYTHON) -m venv --clear build/peer
	$(BIN)/uv pip install --quiet --python build/peer 'anomalib[clip]==2.7.*'
	@touch $@

# The public magnetic tiles, where they lie on this machine: make bench-tiles TILES=path/to/magnetic_tile
bench-tiles: $(VENV)/ready
	$(BIN)/python tests/benchmarks/magnetic_tile.py $(TILES)

# The table of promises in the README; the tiles are left out where TILES is not given
bench-calibration: $(VENV)/ready
	$(BIN)/python tests/benchmarks/scored_products.py build/scored $(if $(TILES),--tiles $(TILES))
	$(BIN)/python tests/benchmarks/calibration_splits.py build/scored --readme README.md

# Pinned versions with hashes; the package itself is installed editable beside them
$(VENV)/ready: requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory .system
	$(PYTHON) -m venv --clear $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --python $(VENV) --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable .
	@touch $@

# What WeasyPrint needs of the system; asked for only when something is missing
.PHONY: .system
.system:
	@missing=""; for p in $(APT_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing $$($(PYTHON) -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi

lock: $(VENV)/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --upgrade --group dev pyproject.toml --output-file requirements.lock

# The demo's result as it is shown in the repository; dated by its own seed, so that it does not change by itself
samples: $(VENV)/ready
	rm -rf build/samples reports/samples
	SOURCE_DATE_EPOCH=1767225600 $(BIN)/explainvad demo --out build/samples
	SOURCE_DATE_EPOCH=1767225600 $(BIN)/explainvad analyze build/samples/lot42 --model build/samples/flange.evad \
	  --out reports/samples --formats pdf,csv,json || test $$? -eq 3
	pdftoppm -r 70 -f 5 -l 5 -png -singlefile reports/samples/report.pdf docs/report_page

clean:
	rm -rf $(VENV) demo build dist
