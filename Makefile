# What a person types. `make` alone says what there is. CONTRIBUTING.md has the short loops.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# One target directory for all clones, outside of them: a clean clone need not compile 400 dependencies again.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/flagmint-target
# rustup puts cargo here; a shell opened before that does not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

# One profile and always the whole workspace (whose crates share features), so that nothing is compiled twice; --locked, so that all build the same versions.
CARGO := --release --locked
BIN := $(CARGO_TARGET_DIR)/release/flagmint
STEP = @printf '\n== %s\n' >&2

.PHONY: help setup run build test torture quick fmt lint docs differential bench audit cluster

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## install what is missing; says what it does, quick when nothing is
	@dev/setup

build: setup
	$(STEP) 'building flagmint'
	@cargo build $(CARGO) --workspace --bins

run: build ## build everything and run the demo until Ctrl-C
	@exec $(BIN) demo

cluster: build ## every role in processes of its own, on Kafka, ClickHouse and Postgres, with load, until Ctrl-C
	@dev/setup tests
	@exec dev/cluster $(BIN)

test: ## every check and test, as CI runs them
	@dev/setup tests
	$(STEP) 'format'
	@cargo fmt --all -- --check
	@$(MAKE) lint
	@$(MAKE) docs
	$(STEP) 'tests, with a PostgreSQL, an Apache Kafka and a ClickHouse'
	@dev/servers/with-all cargo test $(CARGO) --workspace
	$(STEP) 'the commands of the README, with the binary that the tests were run on'
	@dev/readme-commands $(BIN)
	$(STEP) 'the distributed topology: docker-compose.yml, and the same without Docker'
	@dev/check-compose $(BIN)
	@RATE=400 DURATION=5s dev/cluster $(BIN)
	$(STEP) 'all checks passed'

torture: ## kills and harms the running processes, FAULTS=500 times one process and many each (OF=one or OF=many: those only); prints what came of it, by fault
	@dev/setup tests
	@FAULTS=$${FAULTS:-500} dev/servers/with-all cargo test $(CARGO) --workspace --test torture -- --nocapture no_fault_changes_a_number_of_$(OF)

quick: ## unit tests only: no servers, no doc tests
	@cargo test $(CARGO) --workspace --lib --bins --exclude flagmint-control-plane --exclude flagmint-server

fmt: ## format all code
	@cargo fmt --all

lint: ## clippy; warnings are failures
	$(STEP) 'clippy'
	@cargo clippy $(CARGO) --workspace --all-targets -- -D warnings

docs:
	$(STEP) 'documentation'
	@RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO) --workspace --no-deps

differential: ## the same 20 M decisions in both stores, and every question to both
	@dev/setup tests
	@DECISIONS=20000000 dev/servers/with-postgres dev/servers/with-clickhouse cargo test $(CARGO) -p flagmint-query-api --test differential -- --nocapture

bench: setup ## run the benchmarks, write benches/results/*.json, print the tables
	@dev/bench

audit: ## licences and known vulnerabilities of all dependencies (installs cargo-deny)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	@cargo deny --locked check
