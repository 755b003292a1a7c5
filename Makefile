# The work is done by the scripts in compose/native; `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test test-observability chaos recovery up down logs clean sim sim-ablate

help:
	@echo 'make demo   install, build, carry real orders through a fresh stack, check, stop'
	@echo 'make test   format, clippy, dependency rules and every test, on a stack of its own'
	@echo 'make test-observability'
	@echo '            every alert, panel and trace, on a running system'
	@echo 'make sim SEEDS=10000'
	@echo '            the whole platform on a simulated log, seed by seed; SEED=N replays one'
	@echo 'make sim-ablate'
	@echo '            for each protection a seed that fails without it'
	@echo 'make chaos  kill, freeze, fill up and cut off everything under load, and audit;'
	@echo '            MINUTES=30 SEED=... are its settings'
	@echo 'make recovery'
	@echo '            restart and fence the broker, restart all parts, again and again; print how soon all'
	@echo '            is back (about an hour); CYCLES=20 is its setting'
	@echo 'make up     start the stack and all services, and leave them running'
	@echo 'make down   stop what make up started; data is kept'
	@echo 'make logs   follow the logs of what make up started'
	@echo 'make clean  stop everything and delete builds, downloads and data'

demo test test-observability chaos recovery up down logs clean:
	@compose/native/$@

SEEDS ?= 1000
SIM = cargo run --quiet --locked --package simulation --bin sim --

sim:
	@$(SIM) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(if $(WITHOUT),--without $(WITHOUT))

sim-ablate:
	@$(SIM) --ablate --seeds $(SEEDS)
