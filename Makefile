# The commands of this repository. They need make and Python with venv, and nothing else.
#   make pretrain ARGS="--run.seed 1"    make test VENV=/path/to/venv    make PYTHON=python3.12 ...

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

python := $(VENV)/bin/python
# Stamps name the folder they were made in: a clone that was moved is installed again.
here := $(shell pwd | cksum | cut -d ' ' -f 1)
installed := $(VENV)/.seamo_fast-$(here)
installed_dev := $(VENV)/.seamo_fast-dev-$(here)
native := $(VENV)/.seamo_fast-native-$(here)

export PIP_DISABLE_PIP_VERSION_CHECK = 1

define check_python
import sys
if sys.version_info < (3, 10):
    sys.exit("seamo_fast needs Python 3.10 or newer, but %s is %d.%d. Name another one: "
             "make PYTHON=/path/to/python3" % ((sys.executable,) + sys.version_info[:2]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s has no venv. Install it (on Debian and Ubuntu: apt install python3-venv), or name "
             "another Python: make PYTHON=/path/to/python3" % sys.executable)
endef
export check_python

.DELETE_ON_ERROR:
.PHONY: help pretrain test test-all test-sanitize mutants fuzz attack drill soak lint format clean

help:
	@echo 'make pretrain   install, then pretrain on the embedded demo data (ARGS="--key value ...")'
	@echo 'make test       install, then check format, lint and types, and run the tests'
	@echo 'make test-all   the same, slow tests included, with new random examples'
	@echo 'make test-sanitize   the tests of the C++ kernels, compiled with address and undefined sanitizers'
	@echo 'make mutants    put small faults into a copy of the code, which the tests must notice (SAMPLE=40 of them, SEED=12)'
	@echo 'make fuzz       read damaged files in every way they can be read (CASES=10000 of sources and shards, and as many of readers)'
	@echo 'make attack     put wrong and hostile inputs to every door (CASES=5000 of them, SEED=12)'
	@echo 'make drill      kill and disturb pretraining runs, which must end with the same losses (DRILLS=40 of them)'
	@echo 'make soak       watch memory, descriptors and step time of a long pretraining run (MINUTES=45)'
	@echo 'make lint       format, lint and types alone'
	@echo 'make format     format the code and fix what the linter can'
	@echo 'make clean      remove what was built, and .venv'

pretrain: $(native)
	$(python) -m seamo_fast.pretrain $(ARGS)

# Where there is a C++ compiler, kernels that do not compile fail the tests instead of being skipped.
require := $(if $(shell command -v $(or $(CXX),c++)),SEAMO_FAST_TEST_REQUIRE=cpu)

# Each worker has one thread; a worker that is done takes tests over from another.
workers := -n auto --dist worksteal

test: lint $(native)
	$(require) $(python) -m pytest $(workers) $(ARGS)

test-all: lint $(native)
	$(require) $(python) -m pytest $(workers) -m "not gpu" --hypothesis-profile=default $(ARGS)

# Python itself is not instrumented: the sanitizers' libraries must be loaded before it, and what it
# leaks at its end is its own affair.
sanitizers := address,undefined
sanitized := build/sanitize
sanitize_flags := -fsanitize=$(sanitizers) -fno-sanitize-recover=all -fno-omit-frame-pointer
test-sanitize: $(installed_dev)
	SEAMO_FAST_BUILD=cpu SEAMO_FAST_CACHE=$(sanitized) CFLAGS="$(sanitize_flags)" \
		CXXFLAGS="$(sanitize_flags)" LDFLAGS="-fsanitize=$(sanitizers)" $(python) -m seamo_fast.build
	$(require) SEAMO_FAST_CACHE=$(sanitized) LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		$(python) -m pytest tests/kernels -k "(cpu or residual) and not compile" --timeout 900 $(ARGS)

SAMPLE ?= 40
SEED ?= 12
mutants: $(installed_dev) $(native)
	OMP_NUM_THREADS=1 $(python) -m tests.mutants --sample $(SAMPLE) --seed $(SEED) $(ARGS)

CASES ?= 10000
fuzz: $(installed_dev)
	SEAMO_FAST_FUZZ=$(CASES) $(python) -m pytest tests/data/packing/test_fuzz_sources.py \
		tests/tasks/datasets/test_fuzz.py \
		tests/tasks/datasets/test_fuzz_metadata.py --timeout 0 $(ARGS)

attack: CASES = 5000
attack: $(installed_dev) $(native)
	OMP_NUM_THREADS=1 $(python) -m tests.attack --cases $(CASES) --seed $(SEED) $(ARGS)

DRILLS ?= 40
drill: $(native)
	$(python) -m tests.drill --runs $(DRILLS) $(ARGS)

# Step times want a machine that does nothing else.
MINUTES ?= 45
soak: $(native)
	$(python) -m bench.training.soak --minutes $(MINUTES) $(ARGS)

cxx_files = $(wildcard csrc/*.h csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)

# mypy knows neither package_dir nor editable installs, so it is shown the package as it is installed.
lint: $(installed_dev)
	$(python) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(cxx_files)
	$(python) -m ruff check .
	@rm -rf build/types && mkdir -p build/types/seamo_fast
	@ln -s "$(CURDIR)"/seamo_fast/* "$(CURDIR)/kernels" build/types/seamo_fast/
	cd build/types && "$(abspath $(python))" -m mypy \
		--config-file ../../pyproject.toml --cache-dir ../../.mypy_cache --package seamo_fast

format: $(installed_dev)
	$(python) -m ruff format .
	$(VENV)/bin/clang-format -i $(cxx_files)
	$(python) -m ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find seamo_fast kernels tests -name __pycache__ -prune -exec rm -rf {} +

# pip 21.3 is the first with editable installs (PEP 660); a newer one is left alone.
$(python):
	@command -v $(PYTHON) >/dev/null || \
		{ echo '$(PYTHON) was not found. Name a Python: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c "$$check_python"
	$(PYTHON) -m venv $$(test -f $(VENV)/pyvenv.cfg && echo --clear) $(VENV)
	$(python) -m pip install --quiet 'pip>=21.3'

$(installed): pyproject.toml setup.py seamo_fast/_version.py | $(python)
	@echo 'Installing into $(VENV). PyTorch is several GB where it comes with CUDA.'
	$(python) -m pip install --editable .
	@touch $@

# Without a compiler it says so, and the reference implementations run.
$(native): $(installed) $(wildcard csrc/*.h csrc/cpu/* csrc/bindings/* csrc/cuda/*)
	@echo 'Compiling the native kernels'
	$(python) -m seamo_fast.build
	@touch $@

$(installed_dev): $(installed)
	$(python) -m pip install --editable '.[test,dev]'
	@touch $@
