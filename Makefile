# Set-up, training and tests. Settings come from the environment or from make's command line
# (make setup MEGDET_TORCH=2.11.0); what each means: install/README.md
NP ?= 2
ARGS ?=
# As many ranks as cores or more: a rank that waits gives its core away.
crowded := $(shell [ "$(NP)" -ge "$$(nproc 2>/dev/null || echo 1)" ] && echo 1)
ifneq ($(crowded),)
export OMPI_MCA_mpi_yield_when_idle ?= 1
endif

# Processes that test at once: one launches jobs, one keeps ranks up, the others do the rest. All of them
# wait as much as they compute: on two cores six take 7:31, four 8:18. With what they start they take
# 4 GB each. 0: one test after another in one process (make test JOBS=0).
JOBS ?= $(shell cores=$$(nproc 2>/dev/null || echo 1); \
	fit=$$(awk '/^MemTotal/ {print int($$2 / 4000000)}' /proc/meminfo 2>/dev/null); \
	most=$$((cores + 4 < 8 ? cores + 4 : 8)); fit=$${fit:-2}; [ "$$fit" -ge 2 ] || fit=2; \
	echo $$((fit < most ? fit : most)))
# Tests are read once and kept as byte code, whatever the shell says of that: pytest's rewriting of
# their asserts took each of those processes five seconds.
pytest = env -u PYTHONDONTWRITEBYTECODE sh install/run python -m pytest -n $(JOBS) --dist loadgroup --ignore=tests/slurm

# Seed 1, 30 minutes; make test-faults FAULTS="--seed 7 --minutes 5"
FAULTS ?=

.PHONY: help train test test-all test-cluster test-faults check docs setup pack dist archives lock \
	doctor

help:
	@echo "make train     set up if needed, then train the embedded default with NP=$(NP) processes;"
	@echo "               settings of the run: make train NP=4 ARGS=\"global_batch=8 name=mine\""
	@echo "make test      set up if needed, then run the tests (some of them: ARGS=tests/bn)"
	@echo "make test-all  the rest of them: further launchers, numbers of processes and sizes"
	@echo "make test-cluster  the tests on a real Slurm of 16 nodes, brought up here (wants root)"
	@echo "make test-faults  half an hour of injected faults and mutated files (docs/faults.md)"
	@echo "make check     set up if needed, then formatting, lint and types"
	@echo "make docs      the pages of docs/ as a site, docs/_build/html; broken links are errors"
	@echo "make setup     make the environment or bring it up to date; settings: install/README.md"
	@echo "make doctor    what this machine has, and what mends what is missing"
	@echo "make pack      the environment as one archive (.venv.tar), which the nodes of a cluster unpack"
	@echo "make dist      the sdist and the wheel, in dist/ (docs/install.md)"
	@echo "make archives  fill a folder with all that set-up fetches, for machines without network"

setup:
	@sh install/setup setup

train:
	@sh install/setup quiet
	sh install/run horovodrun -np $(NP) python -m megdet_hvd.train $(ARGS)

test:
	@sh install/setup quiet
	$(pytest) -m "not tail" $(ARGS)

test-all:
	@sh install/setup quiet
	$(pytest) -m tail $(ARGS)

test-cluster:
	@sh install/setup quiet
	sh install/run python -m pytest -rs -o faulthandler_timeout=1500 $(or $(ARGS),tests/slurm)

test-faults:
	@sh install/setup quiet
	sh install/run python -m tests.faults.mutations
	sh install/run python -m tests.faults $(FAULTS)

check:
	@sh install/setup quiet
	sh install/run ruff format --check .
	sh install/run ruff check .
	sh install/run mypy

docs:
	@sh install/setup docs

doctor:
	@sh install/setup quiet
	sh install/run python -m megdet_hvd.doctor $(ARGS)

pack:
	@sh install/setup quiet
	@sh install/setup pack

# With setuptools of the environment, so without a network. What a former build left would get in.
dist:
	@sh install/setup quiet
	rm -rf build dist
	sh install/run python -c "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
	@ls dist

archives:
	@sh install/setup archives

# Writes install/lock anew, after a change of install/versions.toml.
lock:
	@sh install/setup lock
