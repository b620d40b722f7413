# The targets a person uses. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help install-tools test test-controller e2e nightly lint crdgen fuzz deny advisories deb images chart demo bench-failover bench-idle bench-proxy bench-control soak dist

CARGO ?= cargo
TARGET = $(shell $(CARGO) metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
RELEASE = $(TARGET)/release
# What packages and images carry, and benchmarks measure: optimised as a whole, which takes minutes.
DIST = $(TARGET)/dist/wsha-dataplane
# What hosts run, and how it is tested.
HOSTS = --workspace --exclude controller
# Tests on a real API server.
REAL = --test api --test chart --test controlplane --test kubernetes
# The lab needs root, the build does not, and root often has no cargo.
SUDO = $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

# Tools of a fixed version, each in a directory of its own outside the tree.
TOOLS = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wsha/tools
CARGO_DEB = $(TOOLS)/cargo-deb-3.8.0/bin/cargo-deb
CARGO_FUZZ = $(TOOLS)/cargo-fuzz-0.13.2/bin/cargo-fuzz
CARGO_DENY = $(TOOLS)/cargo-deny-0.20.2/bin/cargo-deny

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-16s %s\n", $$1, $$2 }'

install-tools: ## install what lab and benchmarks need (iproute2, node and its ws, keepalived, FRR, nginx, HAProxy, Envoy), or say what is missing (root)
	$(CARGO) run --package e2e --bin install-tools

# cargo-deb and cargo-deny are built once, without optimisation: they run for a second. The
# directory says name and version.
$(TOOLS)/%:
	package=$(firstword $(subst /, ,$*)); version=$${package##*-}; \
	$(CARGO) install --locked --debug --root "$(TOOLS)/$$package" --version "$$version" "$${package%-*}"

test: $(CARGO_DEB) lint ## everything that needs no other machine; lab and package tests need root or say SKIPPED
	@# What cannot be installed is missing to some tests, which say so.
	-@$(MAKE) --no-print-directory install-tools
	WSHA_DATAPLANE=$(TARGET)/debug/wsha-dataplane $(CARGO) test $(HOSTS) $(TEST_ARGS) -- --show-output

test-controller: ## the controller's lints and tests, apart: its client of the API server takes minutes to build
	$(CARGO) clippy --package controller --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings --allow rustdoc::private-intra-doc-links' $(CARGO) doc --package controller --no-deps --document-private-items
	$(CARGO) test --package controller $(TEST_ARGS) -- --show-output

e2e: install-tools ## controller, gateways and chart on a real control plane and cluster, built once (go, root): some minutes
	@# One by one, as the images are built: features of both together would build all they need again.
	$(CARGO) build --package controller --bins
	$(CARGO) build --package dataplane --bins
	$(CARGO) clippy --package e2e $(REAL) --test cluster -- --deny warnings
	WSHA_DATAPLANE=$(TARGET)/debug/wsha-dataplane $(CARGO) test --package e2e $(REAL) $(TEST_ARGS) -- --show-output
	@# Apart, as it links the programs anew. WSHA_E2E_KUBECONFIG or WSHA_E2E_CLUSTER=kind: another cluster (e2e/README.md).
	$(CARGO) test --package e2e --test cluster $(TEST_ARGS)

nightly: install-tools ## what takes longer: SEEDS segments of the simulation (200000), HEALS partitions of real hosts (50, root), every fault with every version and family, all cases of Autobahn
	VRRP_LAN_SEEDS=$(or $(SEEDS),200000) $(CARGO) test --release --package vrrp --test lan -- --show-output
	WSHA_HEALS=$(or $(HEALS),50) $(CARGO) test --package dataplane --test netns_vrrp partition -- --show-output
	$(CARGO) build --package dataplane --bins
	WSHA_DATAPLANE=$(TARGET)/debug/wsha-dataplane $(CARGO) test --package e2e --test faults --test interop -- --ignored --show-output
	WSHA_AUTOBAHN=all WSHA_DATAPLANE=$(TARGET)/debug/wsha-dataplane $(CARGO) test --package e2e --test autobahn -- --show-output

lint: ## formatting, clippy, documentation, generated files
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(HOSTS) --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings --allow rustdoc::private-intra-doc-links' $(CARGO) doc $(HOSTS) --no-deps --document-private-items
	$(CARGO) run --quiet --package crds --bin crdgen -- --check
	$(CARGO) run --quiet --package e2e --bin chart-readme -- --check
	@# Each package alone: what it needs stands in its own manifest, not in another's.
	for package in crds node-api plan proxy vrrp dataplane; do $(CARGO) check --quiet --package $$package || exit 1; done

crdgen: ## write the CRD anew from its types
	$(CARGO) run --quiet --package crds --bin crdgen

FUZZ = advertisement_v2 advertisement_v3 arp ipv4 ipv6 neighbour netlink manifests stream_to_node stream_to_controller \
	http_request http2_request http_response http_chunks frames proxy_protocol
fuzz: $(CARGO_FUZZ) ## fuzz the decoders, RUNS executions each (10 million)
	@# No decoder has an unsafe block, so no sanitizer is needed, and a stable compiler will do.
	@# What it finds goes beside the build, and the committed corpus stays as it is.
	cd dataplane && for target in $(FUZZ); do \
		found=fuzz/target/corpus/$$target && mkdir -p $$found && PATH="$(dir $(CARGO_FUZZ)):$$PATH" \
		$(CARGO) fuzz run --sanitizer none $$target $$found fuzz/corpus/$$target -- -runs=$(or $(RUNS),10000000) || exit 1; \
	done

deny: $(CARGO_DENY) ## crates, licences and sources that may be linked
	$(CARGO_DENY) check bans licenses sources

advisories: $(CARGO_DENY) ## known vulnerabilities of crates, where their database can be reached
	@if timeout 60 $(CARGO_DENY) fetch db >/dev/null 2>&1; then \
		$(CARGO_DENY) check advisories; \
	else \
		echo "advisories not checked: their database cannot be reached"; \
	fi

deb: $(CARGO_DEB) ## build the Debian package
	$(CARGO_DEB) --package dataplane --profile dist --strip

images: ## make both images without docker, in target/images, for `docker load`, `ctr images import`, `kind load image-archive`
	$(CARGO) run --quiet --package e2e --bin image -- --out $(TARGET)/images

chart: ## write what is generated of the chart, and have helm look at it (built once: go, some minutes)
	$(CARGO) run --quiet --package crds --bin crdgen
	$(CARGO) run --quiet --package e2e --bin chart-readme
	$(CARGO) test --package e2e --test chart -- --show-output

demo: ## replay the article: wsha beside keepalived and nginx (root, or sudo)
	$(CARGO) build --release --package dataplane --package e2e --bins
	$(SUDO) $(RELEASE)/demo $(ARGS)

dist: ## build the data plane as packages and images carry it
	$(CARGO) build --profile dist --package dataplane --bins

bench-failover: dist ## outages a client sees, wsha beside keepalived and nginx, in one table (root, or sudo); ARGS='--repeat 5', ARGS=load
	$(CARGO) build --release --package e2e --bins
	$(SUDO) env WSHA_DATAPLANE=$(DIST) $(RELEASE)/bench-failover $(ARGS)

bench-idle: dist ## CPU and memory of idle gateways, wsha beside keepalived and nginx, in one table (root, or sudo)
	$(CARGO) build --release --package e2e --bins
	$(SUDO) env WSHA_DATAPLANE=$(DIST) $(RELEASE)/bench-idle $(ARGS)

bench-proxy: dist ## what messages, handshakes, idle sessions and edits cost, wsha beside nginx, HAProxy and Envoy (root, or sudo); ARGS='--svg FILE', ARGS='--workers 2'
	$(CARGO) build --release --package e2e --bins
	$(SUDO) env WSHA_DATAPLANE=$(DIST) $(RELEASE)/bench-proxy $(ARGS)

bench-control: ## how fast endpoints reach hundreds of gateways from a real API server, and what that costs; ARGS='--sizes 100x100'
	$(CARGO) build --release --package controller --package e2e --bins
	$(RELEASE)/bench-control $(ARGS)

soak: dist ## SESSIONS clients (3000) for HOURS (2) and SECONDS (0) under faults and edits, from SEED (any): every close has a cause, memory is flat (root, or sudo); ARGS='--markdown FILE'
	$(CARGO) build --release --package e2e --bins
	$(SUDO) env WSHA_DATAPLANE=$(DIST) $(RELEASE)/soak --sessions $(or $(SESSIONS),3000) \
		--hours $(or $(HOURS),$(if $(SECONDS),0,2)) --seconds $(or $(SECONDS),0) $(if $(SEED),--seed $(SEED)) $(ARGS)
