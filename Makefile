# Every target sets up its own environment in .venv when that is missing or older than the pins.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_PEERS := $(VENV)/.ready-peers
VENV_TIANSHOU_1 := $(VENV)/tianshou-1
VENV_TIMM := $(VENV)/timm
VENV_OLDEST := $(VENV)/oldest
# --no-compile: most of the installed bytecode would never be run.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check \
    -c constraints.txt

# Tests run one process a core with one thread each: the networks are far too small for more.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS)
QUICK := not slow and not peers and not timm and not tianshou_1 and not gpu

QUIET_HF := TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1

.PHONY: test test-slow test-tianshou-1 test-timm test-oldest test-gpu fuzz mutants lint format demo bench proof docs site clean

test: lint
	$(PYTEST) -m "$(QUICK)"

test-slow: $(READY_PEERS)
	$(PYTEST) -m "(slow or peers) and not timm and not gpu"

# tianshou 1.2 needs older libraries than the others, so it has an environment of its own.
test-tianshou-1: $(VENV_TIANSHOU_1)/.ready
	OMP_NUM_THREADS=1 $(VENV_TIANSHOU_1)/bin/python -m pytest -q -m tianshou_1 tests/peers

# timm brings torchvision, and transformers imports that wherever it is installed: so it has an
# environment of its own too.
test-timm: $(VENV_TIMM)/.ready
	OMP_NUM_THREADS=1 $(VENV_TIMM)/bin/python -m pytest -q -m timm tests/peers

# The quick tests on the oldest versions that pyproject.toml admits; gigabytes, with that PyTorch.
test-oldest: $(VENV_OLDEST)/.ready
	OMP_NUM_THREADS=1 $(VENV_OLDEST)/bin/python -m pytest -q -n $(JOBS) -m "$(QUICK)"

test-gpu: $(READY)
	$(BIN)/python -m pytest -q -m gpu

# Ten minutes of damaged configurations, checkpoints and saves; `FUZZ="--seed 1"` draws others.
fuzz: $(READY)
	$(QUIET_HF) OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ)

# Hours: how many small faults in the library the tests notice; `MUTANTS="--sample 20"` tries some.
mutants: $(READY)
	$(BIN)/python -m tests.mutants $(MUTANTS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: $(READY)
	$(QUIET_HF) $(BIN)/python -m demo.run

# Everything, for the machine at hand; `BENCH="acting btr"` measures a part.
bench: $(READY_PEERS)
	$(BIN)/python -m benchmarks $(BENCH)

# Ten minutes: two rows of docs/proof.md run again and compared with what is recorded.
# `PROOF="cartpole acrobot"` runs what is missing of these tables, `PROOF=page` fills the page.
PROOF ?= check
proof: $(READY_PEERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m proof $(PROOF)

docs: $(READY)
	$(QUIET_HF) $(BIN)/python -m docs.generator

# The variable silences an advertisement.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site: $(BIN)/python -m http.server --directory build/site"

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) -e '.[dev,demo]'
	touch $@

$(READY_PEERS): $(READY)
	$(PIP_INSTALL) -e '.[peers]'
	$(PIP_INSTALL) --no-deps MinAtar  # what it depends on is for drawing
	touch $@

$(VENV_TIANSHOU_1)/.ready: pyproject.toml constraints.txt | $(READY)
	$(PYTHON) -m venv $(VENV_TIANSHOU_1)
	grep -v -e '^numpy' -e '^gymnasium' -e '^tianshou' constraints.txt > $(@D)/constraints.txt
	$(VENV_TIANSHOU_1)/bin/python -m pip install --quiet --no-compile \
	    --disable-pip-version-check -c $(@D)/constraints.txt \
	    -e . pytest 'tianshou==1.2.*' 'numpy==1.26.*' 'gymnasium==0.28.*'
	touch $@

$(VENV_TIMM)/.ready: pyproject.toml constraints.txt | $(READY)
	$(PYTHON) -m venv $(VENV_TIMM)
	$(VENV_TIMM)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
	    -c constraints.txt -e '.[timm]' pytest numpy
	touch $@

$(VENV_OLDEST)/.ready: pyproject.toml constraints.txt | $(READY)
	$(PYTHON) -m venv $(VENV_OLDEST)
	sed -nE '/^(dependencies|onnx) = /,/^]/s/^ *"([a-z]+)>=([0-9.]+)",$$/\1==\2/p' pyproject.toml \
	    > $(@D)/constraints.txt
	$(VENV_OLDEST)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
	    -c $(@D)/constraints.txt -e '.[gymnasium,onnx,plots]' jsonschema hypothesis pytest pytest-xdist
	touch $@
