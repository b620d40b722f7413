# The targets a person uses. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help install-tools demo bench-failover

CARGO ?= cargo
RELEASE = $(shell $(CARGO) metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-16s %s\n", $$1, $$2 }'

install-tools: ## install what the lab needs (node's ws, keepalived, nginx), or say what is missing
	$(CARGO) build --release --package e2e --bin install-tools
	$(RELEASE)/install-tools

demo: ## replay the article: wsha beside keepalived and nginx (root)
	$(CARGO) build --release --package dataplane --package e2e --bins
	$(RELEASE)/demo $(ARGS)

bench-failover: ## outages a client sees, wsha beside keepalived and nginx, in one table (root); ARGS='--repeat 5'
	$(CARGO) build --release --package dataplane --package e2e --bins
	$(RELEASE)/bench-failover $(ARGS)
