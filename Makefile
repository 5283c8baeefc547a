# Two commands for newcomers:
#   make demo   build, start the walkthrough on 127.0.0.1:9080, and say what to type
#   make test   everything that `cargo test` holds together
#
# Needed: a Rust toolchain, a C compiler and make. Pingora's zlib also needs cmake, which is installed when missing.

CARGO ?= cargo
# Only used when the machine has no cmake and no package manager that we may use.
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: demo run test lint bench bench-compare bench-gate release release-pgo image clean cmake help

demo: cmake ## start the walkthrough, with a built-in upstream
	$(CARGO) run --quiet -- demo

run: cmake ## serve conf/corsgate.yaml
	$(CARGO) run --release --quiet -- run

test: cmake ## all tests
	$(CARGO) test --quiet

lint: cmake ## formatting and clippy, without warnings
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --all-targets -- --deny warnings

bench: cmake ## engine, router and compile benches
	$(CARGO) bench

bench-compare: cmake ## corsgate beside nginx, HAProxy, Envoy, Caddy and a bare Pingora proxy, in an hour; installs them
	@sh tools/need-peers.sh "$(TOOLS)"
	$(CARGO) build --quiet --release --bin corsgate --example bare
	python3 -B benches/compare/compare.py

bench-gate: cmake ## holds the instructions of a request under a bound beside a bare Pingora proxy; installs valgrind
	@sh tools/debian.sh valgrind=valgrind
	$(CARGO) build --quiet --release --locked --bin corsgate --example bare
	python3 -B benches/compare/gate.py target/release/corsgate target/release/examples/bare

release: cmake ## target/release/corsgate
	$(CARGO) build --release

release-pgo: cmake ## target/pgo/corsgate: the same, faster by a quarter and built in three times as long
	sh tools/release-pgo.sh

image: ## a container image, `corsgate`
	docker build --tag corsgate .

clean:
	$(CARGO) clean

cmake:
	@sh tools/need-cmake.sh "$(TOOLS)"

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / - /'
