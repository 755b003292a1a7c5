# `make help` lists the targets. The scripts in compose/native do the work.
.DEFAULT_GOAL := help
.PHONY: help demo test test-observability chaos recovery up down logs clean sim sim-ablate release install

help:
	@echo 'make demo   install, build, process real orders on a fresh stack, audit, stop'
	@echo 'make test   format, clippy, dependency rules and every test, on a stack of its own, except'
	@echo '            those of make test-observability and make chaos'
	@echo 'make test-observability'
	@echo '            test every alert, panel and trace on a running system; FORM=short skips long tests'
	@echo 'make sim SEEDS=10000'
	@echo '            run the platform on a simulated log, once per seed; SEED=N replays one'
	@echo 'make sim-ablate'
	@echo '            find for each safeguard a seed that fails without it'
	@echo 'make chaos  inject faults under load (crash, freeze, full disk, network) and audit;'
	@echo '            settings: MINUTES=30 SEED=...; FORM=short tests each fault once'
	@echo 'make recovery'
	@echo '            restart and fence the broker and restart all parts, repeatedly; print the recovery'
	@echo '            times (takes about an hour); setting: CYCLES=20'
	@echo 'make up     start the stack and all services, and leave them running'
	@echo 'make down   stop what make up started; data is kept'
	@echo 'make logs   follow the logs of what make up started'
	@echo 'make release'
	@echo '            an optimised binary: target/release/ordermesh'
	@echo 'make install PREFIX=/usr/local'
	@echo '            the release with completions and man pages'
	@echo 'make clean  stop everything and delete builds, downloads and data'

demo test test-observability chaos recovery up down logs clean:
	@compose/native/$@

SEEDS ?= 1000
# With the features of the whole workspace, so that nothing is built twice.
SIM = cargo build --quiet --locked --workspace --bin sim && target/debug/sim

sim:
	@$(SIM) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(if $(WITHOUT),--without $(WITHOUT))

sim-ablate:
	@$(SIM) --ablate --seeds $(SEEDS)

PREFIX ?= /usr/local

release:
	@tools/packaging/release

install:
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) tools/packaging/install
