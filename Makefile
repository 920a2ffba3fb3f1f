# `make` tells what there is
.PHONY: help venv install demo unit unit-all test bench lint format docs man
PYTHON = .venv/bin/python

help:
	@echo "make demo    real RBD snapshots of a real Ceph cluster become qcow2 files, in a minute"
	@echo "make unit    the tests that need no Ceph, no root and no network, in seconds"
	@echo "make unit-all  the same on each Python of 3.9 to 3.13 that is installed"
	@echo "make test    the whole test suite, against a real cluster (as root)"
	@echo "make bench   how fast, as ratios to the old way of doing it (as root)"
	@echo "make lint    ruff, mypy, and the units through systemd-analyze"
	@echo "make docs    the configuration reference, from the table of options"
	@echo "make man     man pages in build/man, from the parser"

# the environment in .venv, which sees the distribution's python3-rados and python3-rbd once they are installed
venv:
	test -x $(PYTHON) || /usr/bin/python3 -m venv --system-site-packages .venv
	@if ! cmp -s setup.cfg .venv/installed.cfg; then \
		echo "installing into .venv"; \
		$(PYTHON) -m pip install -q --disable-pip-version-check -e '.[agent,controller,test,versions,lint]' \
		&& cp setup.cfg .venv/installed.cfg; \
	fi

install:
	demo/install-packages
	@$(MAKE) --no-print-directory venv

demo: install
	$(PYTHON) -m demo

unit: venv
	$(PYTHON) -m pytest -q tests/unit

unit-all: venv
	$(PYTHON) -m nox

# the last are what docs/restore.md uses, whose commands are run
test: install
	demo/install-packages groff-base libnbd-bin fuse3 qemu-system-x86 python3-guestfs linux-image-cloud-amd64
	$(PYTHON) -m pytest -q -n 4 --dist worksteal

bench: install
	$(PYTHON) -m benchmarks.transfer
	$(PYTHON) -m benchmarks.huge
	$(PYTHON) -m benchmarks.restore
	$(PYTHON) -m benchmarks.listing

lint: install
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports --no-logo
	systemd-analyze verify agent/systemd/*.service controller/systemd/*

format: install
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: install
	$(PYTHON) -m ceph_rsnapshot_common.config.reference > docs/configuration.md

man: install
	$(PYTHON) docs/manpages.py build/man
