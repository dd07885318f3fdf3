# The commands of this project, the same by hand and in .ci/run.
#
#   make demo      install what drawing needs, draw out/demo.png
#   make test      install what tests need, run them; the rules are in `make check`, the page in `make browser`
#   make chips     the fast part of the tests on lesser chips and other numbers of threads; ten minutes
#   make check     ruff, mypy --strict, the rules of the house
#   make bench     time ours and diffusers side by side, ten minutes; out/bench.json and out/bench.png
#   make kill9     kill a small training run N=25 times and see that nothing is lost; about ten minutes
#   make fuzz      read N=2000 damaged files with every reader, send N malformed requests: typed errors only; some minutes
#   make faults    kill commands at every file operation, fill their disk, run them side by side; some minutes
#   make browser   the page in Debian's Chromium (apt-get install chromium), with a server behind it; some minutes
#   make toybox    train the shipped model again (resumes; hours); STAGES="measure ship" for some stages only
#   make format    put the code into the form that check asks for
#   make clean     remove .venv, out and caches

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
# Without bytecode of everything: a third of what is installed is ever imported, and Python compiles that itself.
PIP := $(PY) -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt
DEMO_PROMPT := a large red metal sphere left of a small blue rubber cube on grass at sunset

# For training: memory that is given back to the system is faulted in again at every step, a quarter of the time.
ALLOCATOR := GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000

# One stamp per set of dependencies, so that the demo does not wait for what only tests need.
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
PINS := pyproject.toml constraints.txt

.PHONY: demo test chips check bench kill9 faults fuzz browser toybox format clean
.DELETE_ON_ERROR:
.NOTPARALLEL:  # demo and test install into one folder

demo: $(RUN_READY)
	@mkdir -p out
	$(VENV)/bin/sanakit generate "$(DEMO_PROMPT)" --out out/demo.png

test: $(DEV_READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --dist worksteal --ignore tests/browser --ignore tests/rules

# What torch may use, what oneDNN may use, threads; whoever has no core waits without spinning, as workers share cores.
CHIPS ?= avx2:AVX2:1 avx2:AVX2:2 default:SSE41:1 default:SSE41:8
CHIP_TESTS := tests/base tests/kernels tests/layers tests/adapt tests/transformer tests/autoencoder \
	tests/weights/test_aligned.py tests/pipeline/test_folders.py tests/pipeline/test_engine.py tests/pipeline/test_quantised.py
chips: $(DEV_READY)
	@for chip in $(CHIPS); do \
		set -- $$(echo $$chip | tr : ' '); \
		echo "ATEN_CPU_CAPABILITY=$$1 ONEDNN_MAX_CPU_ISA=$$2, $$3 threads"; \
		ATEN_CPU_CAPABILITY=$$1 ONEDNN_MAX_CPU_ISA=$$2 OMP_NUM_THREADS=$$3 SANAKIT_TEST_THREADS=$$3 \
		OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 $(PY) -m pytest -q -n $(WORKERS) $(CHIP_TESTS) || exit 1; \
	done

check: $(DEV_READY)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy --strict
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/rules

bench: $(DEV_READY)
	@mkdir -p out
	$(VENV)/bin/sanakit bench --json out/bench.json --plot out/bench.png

N ?= 25
kill9: $(DEV_READY)
	$(PY) -m bench.kill9 $(N)

fuzz: N = 2000
fuzz: $(DEV_READY)
	OMP_NUM_THREADS=1 $(PY) -m tests.fuzz $(N)
	OMP_NUM_THREADS=1 $(PY) -m tests.server.fuzz $(N)
EVERY ?= 3
faults: $(DEV_READY)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PY) -W ignore -m bench.faults $(EVERY)

browser: $(DEV_READY)
	@$(PIP) -e ".[browser]"
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/browser

toybox: $(DEV_READY)
	$(ALLOCATOR) $(PY) -m recipes.toybox $(STAGES)

format: $(DEV_READY)
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv that works is kept; one that is missing, half made or of another machine is made anew.
define make_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sanakit needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
endef

$(RUN_READY): $(PINS)
	$(make_venv)
	@echo "installing sanakit into $(VENV) (torch is the large part)"
	@$(PIP) -e .
	@touch $@

# Whoever tests first installs everything at once.
$(DEV_READY): $(PINS)
	$(make_venv)
	@echo "installing sanakit and what tests and checks need into $(VENV) (torch is the large part)"
	@$(PIP) -e ".[test,dev,bench]"
	@touch $(RUN_READY) $@
