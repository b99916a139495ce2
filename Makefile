# The project's doors. Each gets by itself what it needs, into .venv and .tools; see tools/.
# ARGS="…" is handed on, as in: make test ARGS="-k upload"

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BOOTSTRAP = @$(or $(PYTHON),$(error Python 3.11 or newer is needed: install python3)) tools/bootstrap

# Debian packages that the tests run against: one more is one more word.
COMPONENTS = docker-registry skopeo redis-server zstd nginx tinyproxy docker.io containerd runc podman conmon chromium

# Tests wait about as much as they work, so more run at once than there are processors.
WORKERS ?= $(shell expr $$(nproc) + 2)

.PHONY: help demo image test lint bench soak fuzz audit clean
help:
	@echo "make demo    push a real image to a registry of its own, twice, and read it back"
	@echo "make image   make an image of towline and push it: ARGS=\"REGISTRY/REPOSITORY:TAG [--base REF]\""
	@echo "make test    all tests; ARGS=\"-k upload\" for some of them, WORKERS=N for N at once"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make bench   measure pushes beside their peers; CASE=small for one case, PEERS=DIR says"
	@echo "             where more peers are"
	@echo "make soak    push for a long time and under faults"
	@echo "make fuzz    feed what is read from others with noise; ARGS=30 says for how many minutes"
	@echo "make audit   list what the program is made of (CycloneDX), and what is known against it"
	@echo "make clean   remove .venv, .tools, .bench and caches"

demo:
	$(BOOTSTRAP) run
	@.venv/bin/towline demo $(ARGS)

image:
	$(BOOTSTRAP) run
	@.venv/bin/python tools/image.py $(ARGS)

test:
	$(BOOTSTRAP) test
	@tools/fetch-debian $(COMPONENTS) || true
	@# pytest keeps what failed, and else leaves an empty folder. Where the user's shell forbids Python to
	@# keep what it has compiled, each worker and each of some hundred commands would compile all anew.
	@status=0; \
	PYTHONDONTWRITEBYTECODE= PATH="$(CURDIR)/.tools/bin:$$PATH" .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS) || status=$$?; \
	rmdir "$${TMPDIR:-/tmp}/pytest-of-$$(id -un)" 2>/dev/null; exit $$status

lint:
	$(BOOTSTRAP) lint
	@status=0; \
	for check in "-m ruff check" "-m ruff format --check" "-m mypy" ".venv/bin/lint-imports --no-logo"; do \
	  .venv/bin/python $$check || status=1; \
	done; exit $$status

bench:
	$(BOOTSTRAP) run
	@tools/fetch-debian docker-registry skopeo iproute2 || true
	@PATH="$(CURDIR)/.tools/bin:$$PATH" .venv/bin/python -m benchmarks --write $(CASE) $(ARGS)

soak:
	$(BOOTSTRAP) test
	@PATH="$(CURDIR)/.tools/bin:$$PATH" .venv/bin/python -m benchmarks.soak $(ARGS)

fuzz:
	$(BOOTSTRAP) test
	@PATH="$(CURDIR)/.tools/bin:$$PATH" .venv/bin/python -m benchmarks.fuzz $(ARGS)

audit:
	$(BOOTSTRAP) run
	@.venv/bin/python tools/audit.py $(ARGS)

clean:
	rm -rf .venv .tools .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
