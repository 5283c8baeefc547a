# Start here:
#   make demo   build, start the walkthrough on 127.0.0.1:9080, and print commands to try
#   make test   run all tests
#
# Requires a Rust toolchain, a C compiler and make. Pingora's zlib also requires cmake, which is installed if missing.
# `make test` installs the browser, servers and clients that users have, because some tests run them.

CARGO ?= cargo
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
# Only used if the machine has neither cmake nor a package manager that can install it.
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: demo run test test-browser test-tools soak fuzz lint audit sbom mutants loom pairs prove bench bench-compare bench-rate-limit compare-scanners performance-page bench-gate release image deb clean cmake help

demo: cmake ## start the walkthrough, with a built-in upstream
	$(CARGO) run --quiet -- demo

run: cmake ## serve conf/corsgate.yaml
	$(CARGO) run --release --quiet -- run --config conf/corsgate.yaml

test: cmake test-tools ## run all tests
	$(CARGO) test --quiet

test-browser: cmake test-tools ## run the tests with Chromium and Firefox only
	$(CARGO) test --quiet --test it -- chromium firefox probe_browser ui_browser

test-tools:
	@sh tools/debian.sh chromium=chromium firefox-esr=firefox-esr certutil=libnss3-tools nginx=nginx varnishd=varnish haproxy=haproxy apache2=apache2-bin \
		node=nodejs npm=npm python3=python3 etcd=etcd-server etcdctl=etcd-client
	@sh tools/need-envoy.sh "$(TOOLS)"
	@sh tools/need-express.sh "$(TOOLS)"
	@sh tools/need-browser-driver.sh "$(TOOLS)"

soak: cmake ## run mixed traffic for MINUTES (10), and draw memory, descriptors and latency
	SOAK_MINUTES=$(or $(MINUTES),10) $(CARGO) test --quiet --test it -- --ignored --nocapture soak::
	python3 -B compare/soak.py target/soak/samples.csv target/soak/samples.svg

fuzz: cmake ## fuzz each target for SECONDS (60); installs cargo-fuzz
	@sh tools/fuzz.sh $(or $(SECONDS),60)

lint: cmake ## check formatting and clippy; warnings fail
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --all-targets -- --deny warnings

audit: ## check advisories, licences and duplicates of all dependencies; ADVISORY_DB=DIR instead of the network
	@sh tools/need-cargo.sh cargo-deny
	@sh tools/audit.sh "$(ADVISORY_DB)"

sbom: ## write target/corsgate.cdx.json, a CycloneDX list of all crates in the binary
	@sh tools/need-cargo.sh cargo-cyclonedx
	$(CARGO) cyclonedx --quiet --format json --spec-version 1.5 --describe crate --target x86_64-unknown-linux-gnu
	@mv corsgate.cdx.json target/corsgate.cdx.json

mutants: ## change the CORS engine, the router and the decision line by line, and list changes that no test detects (hours)
	@sh tools/need-cargo.sh cargo-mutants
	@sh tools/mutants.sh

loom: ## run the access log and the queue of an upstream in every order of their threads
	cd tests/loom && RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=../../target/loom $(CARGO) test --quiet --release

pairs: ## compare 50 million pairs of origin patterns and origins with the rules of the reference (half an hour)
	python3 -B tools/pure_core.py target/pure/crate
	cd target/pure/crate && CARGO_TARGET_DIR=../target $(CARGO) test --quiet --release --test it -- --ignored --nocapture fifty_million

prove: cmake ## run everything in docs/reliability.md but the mutation tests (hours); SECONDS for each fuzz target, MINUTES of soak
	$(MAKE) test lint bench-gate audit loom pairs
	sh tools/faults.sh
	$(MAKE) fuzz SECONDS=$(or $(SECONDS),60)
	$(MAKE) soak MINUTES=$(or $(MINUTES),10)

bench: cmake ## run the engine, router and compile benches
	$(CARGO) bench

bench-compare: cmake ## compare with nginx, HAProxy, Envoy, Caddy, Traefik and bare Pingora (an hour; installs them)
	@sh tools/need-peers.sh "$(TOOLS)"
	$(CARGO) build --quiet --release --bin corsgate --example bare
	@# Makes the profile-guided builds if the code is newer.
	@[ -x target/pgo/bare ] && [ -z "$$(find src examples/bare.rs Cargo.toml Cargo.lock -newer target/pgo/corsgate)" ] || \
		sh tools/release-pgo.sh bare
	python3 -B compare/compare.py

bench-rate-limit: release ## compare rate limits with nginx under an attack with a million keys (two minutes)
	@sh tools/debian.sh nginx=nginx wrk=wrk
	python3 -B compare/rate_limit.py

compare-scanners: cmake ## print what public CORS scanners find at the targets of `probe --audit`; installs them
	@sh tools/venv.sh "$(TOOLS)/scanners" corscanner corscanner==0.9.7 overreacher==1.0.2 corsair-scan==0.2.0
	python3 -B compare/scanners.py "$(TOOLS)/scanners"

performance-page: ## write docs/performance.md and docs/performance/measurements.md from docs/performance/results
	python3 -B compare/report.py

bench-gate: cmake ## check the instructions per request against a bare Pingora proxy; installs valgrind
	@sh tools/debian.sh valgrind=valgrind etcd=etcd-server etcdctl=etcd-client
	$(CARGO) build --quiet --release --locked --bin corsgate --example bare
	python3 -B compare/gate.py target/release/corsgate target/release/examples/bare

release: cmake ## build target/release/corsgate with profile-guided optimisation, in twice the time of a plain build
	CARGO="$(CARGO)" sh tools/release-pgo.sh
	@mkdir -p target/release
	install -m 755 target/pgo/corsgate target/release/corsgate

image: ## build the container image of the same build, tagged with the version and `latest`
	docker build --tag corsgate:$(VERSION) --tag corsgate:latest .

deb: release ## build target/debian/corsgate_*.deb, with the systemd unit; installs cargo-deb
	@sh tools/need-cargo.sh cargo-deb
	$(CARGO) deb --locked --no-build

clean:
	$(CARGO) clean

cmake:
	@sh tools/need-cmake.sh "$(TOOLS)"

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / - /'
