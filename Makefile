# cryptod: `make help` lists the targets.

PYTHON ?= python3
# The package index that torch comes from: PyTorch's own of builds for processors alone, where it answers. Another one is taken as it is;
# TORCH_INDEX= leaves it to pip, and so to what pip is configured with.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?=
INPUTS ?= 10000000

# make install
DESTDIR ?=
PREFIX ?= /usr/local
OPTDIR ?= /opt/cryptod
SYSCONFDIR ?= /etc
SYSTEMDUNITDIR ?= /usr/lib/systemd/system
SYSTEMDUSERUNITDIR ?= /usr/lib/systemd/user
SYSUSERSDIR ?= /usr/lib/sysusers.d
TMPFILESDIR ?= /usr/lib/tmpfiles.d
MANDIR ?= $(PREFIX)/share/man
bashdir ?= $(PREFIX)/share/bash-completion/completions
zshdir ?= $(PREFIX)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
fishdir ?= $(PREFIX)/share/fish/vendor_completions.d
# The system's own Python: the service's user cannot look into a home folder, where others often lie.
INSTALL_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))

TORCH := $(shell grep '^torch==' constraints.txt)
# $(call index,PYTHON): pip's option for that index; none where the default does not answer within seconds: pip would try for minutes.
ASK := import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=4)
DEFAULT_INDEX := $(filter file,$(origin TORCH_INDEX))
index = $(if $(DEFAULT_INDEX),$$(timeout 5 $(1) -Ic '$(ASK)' $(TORCH_INDEX) 2>/dev/null && echo --index-url $(TORCH_INDEX) || true),\
	$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)))
# Without its dependencies: those come with everything else, from pip's own index, at the pinned releases.
INSTALL_TORCH := install --no-deps
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# $(call suitable,PYTHON): stops with a sentence where that Python will not do.
suitable = @$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "$(1) is missing or older than Python 3.11; name another: make $(2)=/path/to/python3.11" >&2; exit 1; }; \
	$(1) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "$(1) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# $(call cost,PYTHON): a line about what torch costs there, where it is the build for graphics cards.
CARDS := import importlib.metadata as m, os, sys; sys.exit(os.path.exists(m.distribution("torch").locate_file("torch/lib/libtorch_cuda.so")))
cost = $(1) -Ic '$(CARDS)' || echo "torch is the build for graphics cards: about 3 GB of download, 5 GB on the disk, and 300 MB more memory\
 while a child trains; TORCH_INDEX=<an index of builds for processors alone> takes the other" >&2

# A line in a .pth file: setuptools' other way puts a finder into every start of Python, 15 ms that an installed cryptoctl does not pay.
EDITABLE := --config-settings editable_mode=compat -e

.PHONY: help demo pictures test lint run bench figures soak storms chaos fuzz install lock uninstall deb test-deb test-container test-fresh clean $(BENCHES)
.DEFAULT_GOAL := help

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.made: pyproject.toml constraints.txt
	$(call suitable,$(PYTHON),PYTHON)
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@index="$(call index,$(BIN)/python)"; set -x; $(BIN)/pip $(INSTALL_TORCH) $$index $(TORCH) \
		$(if $(DEFAULT_INDEX),|| { test -n "$$index" && $(BIN)/pip $(INSTALL_TORCH) $(TORCH); })
	$(BIN)/pip install -c constraints.txt $(EDITABLE) '.[daemon,client,test]'
	@$(call cost,$(BIN)/python)
	@touch $@

# What serving is compared with: Debian's redis-tools hold the whole Redis server, and no service that would have to be stopped.
.venv/.made-bench: .venv/.made
	$(BIN)/pip install -c constraints.txt $(EDITABLE) '.[bench]'
	@command -v redis-check-rdb >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q \
	&& apt-get install -qy --no-install-recommends redis-tools; } || echo "without redis-tools there is no comparison with Redis" >&2
	@touch $@

demo: .venv/.made ## Watch it work: a simulated exchange, 100 coins, training, forecasts; leaves nothing behind
	@exec $(BIN)/python tests/demo.py

pictures: .venv/.made ## The pictures of docs/images: a simulated run of days, a quarter of an hour (CRYPTOD_SOCKET= draws a running daemon)
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/python -m tests.pictures

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
	@mkdir -p .bench; echo "== $*"; BENCH_FILE=.bench/$*.json exec $(BIN)/python -m tests.bench.bench_$*

figures: .venv/.made ## Write what the last benches found into README.md and docs/performance.md
	@exec $(BIN)/python -m tests.bench.performance

DAYS ?= 30
COINS ?= 30
SPEED ?= 1500
soak: .venv/.made ## A month left alone, at speed (DAYS=... COINS=... SPEED=...): nothing may grow, be late or fail; then a month of storms
	@$(BIN)/python -m tests.soak.month --days $(DAYS) --coins $(COINS) --speed $(SPEED)
	@$(MAKE) --no-print-directory storms

storms: .venv/.made ## A month in which the exchange does everything wrong, each thing alone and all mixed
	@exec $(BIN)/python -m tests.soak.storms --days $(DAYS) --speed $(SPEED)

KILLS ?= 1000
SEED ?= 1
chaos: .venv/.made ## A thousand kills (KILLS=... SEED=...) of the daemon and its children under load, and what must hold after each
	@$(BIN)/python -m tests.chaos.kills --kills $(KILLS) --seed $(SEED)
	@exec $(BIN)/python -m tests.chaos.replay --seed $(SEED) --runs 40

fuzz: .venv/.made ## Millions of hostile inputs, guided by coverage (INPUTS=10000000, about an hour), then crowds and floods
	$(BIN)/pip install -q -c constraints.txt $(EDITABLE) '.[fuzz]'
	@exec $(BIN)/python -m tests.fuzz --inputs $(INPUTS)

# The environment is built beside the one in use and takes its place at the end: an installation that fails leaves the old one
# working. Scripts are told their final place, which DESTDIR is no part of.
NEW = $(DESTDIR)$(OPTDIR).new
# Nothing is installed but the files whose checksums are in packaging/locks, and what they are built with is among them. torch for
# processors alone where pip finds such a build (TORCH_INDEX, or an index in its configuration), else the public one, which is large.
LOCKED := install --require-hashes --no-deps --no-build-isolation
# One daemon, one for each /etc/cryptod/NAME.toml, and a user's own.
UNITS := cryptod.service cryptod.socket cryptod@.service cryptod@.socket cryptod-metrics@.service cryptod-metrics.socket
USER_UNITS := user/cryptod.service user/cryptod.socket
install: ## As root: /opt/cryptod, cryptod and cryptoctl in PREFIX/bin, units, user, configuration (DESTDIR= for packagers)
	$(call suitable,$(INSTALL_PYTHON),INSTALL_PYTHON)
	@case "$$($(INSTALL_PYTHON) -c 'import sys; print(sys.base_prefix)')" in /root*|/home*) \
		echo "$(INSTALL_PYTHON) lies in a home folder, where the service's user cannot look; name another with INSTALL_PYTHON=" >&2; exit 1;; esac
	umask 022; set -e; \
	rm -rf "$(NEW)" build; \
	$(INSTALL_PYTHON) -m venv "$(NEW)"; \
	"$(NEW)/bin/python" -I -m pip $(LOCKED) -r packaging/locks/build.txt; \
	index="$(call index,"$(NEW)/bin/python")"; "$(NEW)/bin/python" -I -m pip $(LOCKED) $$index -r packaging/locks/torch-cpu.txt \
		$(if $(or $(DEFAULT_INDEX),$(if $(TORCH_INDEX),,pip)),|| "$(NEW)/bin/python" -I -m pip $(LOCKED) -r packaging/locks/torch.txt); \
	"$(NEW)/bin/python" -I -m pip $(LOCKED) -r packaging/locks/daemon.txt; \
	"$(NEW)/bin/python" -I -m pip install --no-deps --no-build-isolation --no-index .; \
	find "$(NEW)/bin" -type f ! -name cryptod ! -name cryptoctl -delete; \
	"$(NEW)/bin/python" -IB packaging/trim.py; \
	$(call cost,"$(NEW)/bin/python"); \
	"$(NEW)/bin/python" -EB packaging/pages/manual.py "$(DESTDIR)$(MANDIR)"; \
	"$(NEW)/bin/python" -EB packaging/pages/completion.py $(foreach shell,bash zsh fish,$(shell) "$(DESTDIR)$($(shell)dir)"); \
	sed -i '1s|.*|#!$(OPTDIR)/bin/python|' "$(NEW)/bin/cryptod" "$(NEW)/bin/cryptoctl"; \
	sed -i '/^command = /d' "$(NEW)/pyvenv.cfg"; \
	rm -rf "$(DESTDIR)$(OPTDIR)"; mv "$(NEW)" "$(DESTDIR)$(OPTDIR)"; \
	install -d "$(DESTDIR)$(PREFIX)/bin"; \
	for command in cryptod cryptoctl; do ln -sfn "$(OPTDIR)/bin/$$command" "$(DESTDIR)$(PREFIX)/bin/$$command"; done; \
	for unit in $(UNITS) $(USER_UNITS); do \
		case "$$unit" in user/*) target="$(DESTDIR)$(SYSTEMDUSERUNITDIR)/$${unit#user/}";; *) target="$(DESTDIR)$(SYSTEMDUNITDIR)/$$unit";; esac; \
		install -D -m 0644 "packaging/systemd/$$unit" "$$target"; \
		sed -i 's|/opt/cryptod|$(OPTDIR)|' "$$target"; \
	done; \
	install -D -m 0644 packaging/systemd/cryptod.sysusers "$(DESTDIR)$(SYSUSERSDIR)/cryptod.conf"; \
	install -D -m 0644 packaging/systemd/cryptod.tmpfiles "$(DESTDIR)$(TMPFILESDIR)/cryptod.conf"; \
	test -e "$(DESTDIR)$(SYSCONFDIR)/cryptod/cryptod.toml" || install -D -m 0644 etc/cryptod.toml "$(DESTDIR)$(SYSCONFDIR)/cryptod/cryptod.toml"
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemd-sysusers cryptod.conf && systemd-tmpfiles --create cryptod.conf && systemctl daemon-reload \
		&& echo "installed; start it with: systemctl enable --now cryptod"; fi

lock: ## Write packaging/locks anew from constraints.txt, checksums and all (needs uv; TORCH_INDEX=... for torch-cpu.txt)
	$(PYTHON) packaging/locks/lock.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

# A Debian package of it, from a tree of its own; installing it needs neither an index nor a compiler.
# DEBFULLNAME and DEBEMAIL, as Debian's own tools read them, name its maintainer: whoever builds it.
DEB_VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' cryptod/__init__.py)-1
deb: ## A Debian package in dist/: sudo apt install ./dist/cryptod_*.deb
	rm -rf dist/stage
	$(MAKE) --no-print-directory install DESTDIR="$(CURDIR)/dist/stage" PREFIX=/usr
	sh packaging/debian/build dist/stage "$(DEB_VERSION)" dist

test-deb: .venv/.made ## Build that package, check it with lintian, and install, upgrade and purge it on a machine of its own (root)
	$(BIN)/pytest tests/systemd/package.py $(PYTEST_ARGS)

test-container: .venv/.made ## Build the image of packaging/container, by an engine or step by step in a chroot, and run it (root; BASE=debian:...)
	$(BIN)/pytest -s tests/container/image.py $(PYTEST_ARGS)
DEBIAN ?= 13
STEPS ?= demo,test,deb,package
test-fresh: ## As root: all of this on a fresh Debian (DEBIAN=13 or 12, STEPS=demo,test,deb,package, TORCH_WHEEL=, KEEP=1, FOLDER=)
	@exec $(PYTHON) -m tests.fresh --debian $(DEBIAN) --steps $(STEPS) $(if $(FOLDER),--folder $(FOLDER)) $(if $(KEEP),--keep) \
		$(if $(ARCHIVE),--archive $(ARCHIVE)) $(if $(TORCH_WHEEL),--torch-wheel $(TORCH_WHEEL)) \
		$(if $(findstring command,$(origin TORCH_INDEX)),--torch-index=$(TORCH_INDEX))

uninstall: ## As root: take out what install put in; state and configuration only with PURGE=1
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl disable --now cryptod.service cryptod.socket cryptod-metrics.socket \
		$$(cd /etc/systemd/system && ls -d *.wants/cryptod@?*.service *.wants/cryptod@?*.socket 2>/dev/null | sed 's|.*/||') || true; \
		systemctl stop 'cryptod@*.service' 'cryptod@*.socket' || true; fi
	rm -rf "$(DESTDIR)$(OPTDIR)" "$(NEW)"
	rm -f "$(DESTDIR)$(PREFIX)/bin/cryptod" "$(DESTDIR)$(PREFIX)/bin/cryptoctl" \
		$(foreach unit,$(UNITS),"$(DESTDIR)$(SYSTEMDUNITDIR)/$(unit)") \
		$(foreach unit,$(notdir $(USER_UNITS)),"$(DESTDIR)$(SYSTEMDUSERUNITDIR)/$(unit)") \
		"$(DESTDIR)$(SYSUSERSDIR)/cryptod.conf" "$(DESTDIR)$(TMPFILESDIR)/cryptod.conf" \
		$(foreach page,man8/cryptod.8 man1/cryptoctl.1 man5/cryptod.toml.5,"$(DESTDIR)$(MANDIR)/$(page).gz") \
		$(foreach command,cryptod cryptoctl,"$(DESTDIR)$(bashdir)/$(command)" "$(DESTDIR)$(zshdir)/_$(command)" \
		"$(DESTDIR)$(fishdir)/$(command).fish")
ifeq ($(PURGE),1)
	rm -rf "$(DESTDIR)$(SYSCONFDIR)/cryptod" "$(DESTDIR)/var/lib/cryptod" "$(DESTDIR)/run/cryptod" \
		"$(DESTDIR)"/var/lib/cryptod@* "$(DESTDIR)"/run/cryptod@*
	@if [ -z "$(DESTDIR)" ] && id cryptod >/dev/null 2>&1; then userdel cryptod; fi
endif
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

clean: ## Remove what was built and cached, and the demo's remains; keeps .venv and .run
	rm -rf build dist *.egg-info .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -type d -exec rm -rf {} +
