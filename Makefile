# cryptod: `make help` lists the targets.

PYTHON ?= python3
# The package index that torch comes from, when not pip's own: PyTorch's index of CPU-only builds spares gigabytes.
TORCH_INDEX ?=
PYTEST_ARGS ?=

# make install
DESTDIR ?=
PREFIX ?= /usr/local
OPTDIR ?= /opt/cryptod
SYSCONFDIR ?= /etc
SYSTEMDUNITDIR ?= /usr/lib/systemd/system
SYSUSERSDIR ?= /usr/lib/sysusers.d
TMPFILESDIR ?= /usr/lib/tmpfiles.d
# The system's own Python: the service's user cannot look into a home folder, where others often lie.
INSTALL_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))

TORCH := $(shell grep '^torch==' constraints.txt)
# Without its dependencies: those come with everything else, from pip's own index, at the pinned releases.
INSTALL_TORCH := install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# $(call suitable,PYTHON): stops with a sentence where that Python will not do.
suitable = @$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "$(1) is missing or older than Python 3.11; name another: make $(2)=/path/to/python3.11" >&2; exit 1; }; \
	$(1) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "$(1) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

.PHONY: help demo test lint run bench install uninstall clean $(BENCHES)
.DEFAULT_GOAL := help

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.made: pyproject.toml constraints.txt
	$(call suitable,$(PYTHON),PYTHON)
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip $(INSTALL_TORCH)
	$(BIN)/pip install -c constraints.txt -e '.[daemon,test]'
	@touch $@

# What serving is compared with: Debian's redis-tools hold the whole Redis server, and no service that would have to be stopped.
.venv/.made-bench: .venv/.made
	$(BIN)/pip install -c constraints.txt -e '.[bench]'
	@command -v redis-check-rdb >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q \
	&& apt-get install -qy --no-install-recommends redis-tools; } || echo "without redis-tools there is no comparison with Redis" >&2
	@touch $@

demo: .venv/.made ## Watch it work: a simulated exchange, 100 coins, training, forecasts; leaves nothing behind
	@exec $(BIN)/python tests/demo.py

test: lint ## Linters, types and all tests (PYTEST_ARGS=... for some)
	$(BIN)/pytest $(PYTEST_ARGS)

lint: .venv/.made
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

run: .venv/.made ## The daemon in the foreground, state in ./.run, configured by etc/cryptod.toml or $CRYPTOD_CONFIG
	@mkdir -p .run
	@CRYPTOD_CONFIG="$${CRYPTOD_CONFIG:-etc/cryptod.toml}" \
	CRYPTOD_STORAGE_DIRECTORY="$${CRYPTOD_STORAGE_DIRECTORY:-$(CURDIR)/.run}" \
	CRYPTOD_SOCKET_PATH="$${CRYPTOD_SOCKET_PATH:-$(CURDIR)/.run/cryptod.sock}" \
	exec $(BIN)/cryptod run

BENCHES := $(patsubst tests/bench/bench_%.py,bench-%,$(wildcard tests/bench/bench_*.py))
bench: .venv/.made-bench ## The figures of the README, measured here: all of them, or one kind with bench-NAME
	@for bench in $(BENCHES); do $(MAKE) --no-print-directory "$$bench" || exit 1; done

$(BENCHES): bench-%: .venv/.made-bench
	@echo "== $*"; exec $(BIN)/python -m tests.bench.bench_$*

# The environment is built beside the one in use and takes its place at the end: an installation that fails leaves the old one
# working. Scripts are told their final place, which DESTDIR is no part of.
NEW = $(DESTDIR)$(OPTDIR).new
install: ## As root: /opt/cryptod, cryptod and cryptoctl in PREFIX/bin, units, user, configuration (DESTDIR= for packagers)
	$(call suitable,$(INSTALL_PYTHON),INSTALL_PYTHON)
	@case "$$($(INSTALL_PYTHON) -c 'import sys; print(sys.base_prefix)')" in /root*|/home*) \
		echo "$(INSTALL_PYTHON) lies in a home folder, where the service's user cannot look; name another with INSTALL_PYTHON=" >&2; exit 1;; esac
	umask 022; set -e; \
	rm -rf "$(NEW)" build; \
	$(INSTALL_PYTHON) -m venv "$(NEW)"; \
	"$(NEW)/bin/python" -m pip $(INSTALL_TORCH); \
	"$(NEW)/bin/python" -m pip install -c constraints.txt '.[daemon]'; \
	find "$(NEW)/bin" -type f ! -name cryptod ! -name cryptoctl -delete; \
	sed -i '1s|.*|#!$(OPTDIR)/bin/python|' "$(NEW)/bin/cryptod" "$(NEW)/bin/cryptoctl"; \
	sed -i '/^command = /d' "$(NEW)/pyvenv.cfg"; \
	rm -rf "$(DESTDIR)$(OPTDIR)"; mv "$(NEW)" "$(DESTDIR)$(OPTDIR)"; \
	install -d "$(DESTDIR)$(PREFIX)/bin"; \
	for command in cryptod cryptoctl; do ln -sfn "$(OPTDIR)/bin/$$command" "$(DESTDIR)$(PREFIX)/bin/$$command"; done; \
	for unit in cryptod.service cryptod.socket cryptod-metrics@.service cryptod-metrics.socket; do \
		install -D -m 0644 "packaging/systemd/$$unit" "$(DESTDIR)$(SYSTEMDUNITDIR)/$$unit"; \
		sed -i 's|/opt/cryptod|$(OPTDIR)|' "$(DESTDIR)$(SYSTEMDUNITDIR)/$$unit"; \
	done; \
	install -D -m 0644 packaging/systemd/cryptod.sysusers "$(DESTDIR)$(SYSUSERSDIR)/cryptod.conf"; \
	install -D -m 0644 packaging/systemd/cryptod.tmpfiles "$(DESTDIR)$(TMPFILESDIR)/cryptod.conf"; \
	test -e "$(DESTDIR)$(SYSCONFDIR)/cryptod/cryptod.toml" || install -D -m 0644 etc/cryptod.toml "$(DESTDIR)$(SYSCONFDIR)/cryptod/cryptod.toml"
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemd-sysusers cryptod.conf && systemd-tmpfiles --create cryptod.conf && systemctl daemon-reload \
		&& echo "installed; start it with: systemctl enable --now cryptod"; fi

uninstall: ## As root: take out what install put in; state and configuration only with PURGE=1
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl disable --now cryptod.service cryptod.socket cryptod-metrics.socket || true; fi
	rm -rf "$(DESTDIR)$(OPTDIR)" "$(NEW)"
	rm -f "$(DESTDIR)$(PREFIX)/bin/cryptod" "$(DESTDIR)$(PREFIX)/bin/cryptoctl" \
		"$(DESTDIR)$(SYSTEMDUNITDIR)/cryptod.service" "$(DESTDIR)$(SYSTEMDUNITDIR)/cryptod.socket" \
		"$(DESTDIR)$(SYSTEMDUNITDIR)/cryptod-metrics@.service" "$(DESTDIR)$(SYSTEMDUNITDIR)/cryptod-metrics.socket" \
		"$(DESTDIR)$(SYSUSERSDIR)/cryptod.conf" "$(DESTDIR)$(TMPFILESDIR)/cryptod.conf"
ifeq ($(PURGE),1)
	rm -rf "$(DESTDIR)$(SYSCONFDIR)/cryptod" "$(DESTDIR)/var/lib/cryptod" "$(DESTDIR)/run/cryptod"
	@if [ -z "$(DESTDIR)" ] && id cryptod >/dev/null 2>&1; then userdel cryptod; fi
endif
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

clean: ## Remove what was built and cached, and the demo's remains; keeps .venv and .run
	rm -rf build dist *.egg-info .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -type d -exec rm -rf {} +
