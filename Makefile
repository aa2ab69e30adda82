# Each target is a loop over the modules of this checkout around one or two
# commands that can be typed by hand as well.

SHELL   := bash -euo pipefail
MODULES := $(patsubst %/go.mod,%,$(shell find . -name go.mod -not -path '*/testdata/*' | sort))
LINT    ?= golangci-lint

# each runs a command in every module.
each = for m in $(MODULES); do echo "== $$m: $(1)"; (cd $$m && $(1)); done

.PHONY: help test race lint vet fmt bench examples controls sim chaos tidy check

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

test: ## run the tests (those on a real Redis need redis-server in PATH)
	@$(call each,go test ./...)

race: ## run the tests as CI does: race detector, random order, redis-server required
	@$(call each,REDISTEST_REQUIRE=1 go test -race -shuffle=on -count=1 ./...)

lint: ## run golangci-lint (LINT=path if it is not in PATH)
	@$(call each,$(LINT) run ./...)

vet: ## run go vet
	@$(call each,go vet ./...)

fmt: ## format all files
	gofmt -w .

bench: ## run the benchmarks
	@$(call each,go test -run '^$$' -bench . -benchmem ./...)

examples: ## run the examples and compare their output
	@$(call each,go test -run Example -count=1 ./...)

controls: ## break the code one rule at a time; a test has to fail each time
	@go run ./internal/controls

sim: ## simulate 10,000 seeds in virtual time
	go test ./internal/sim -run 'Sim$$' -seeds 10000 -timeout 30m -count=1 -v

chaos: ## harm real processes and servers for two minutes, and account for all
	@cd cmd/sidestep && go run . chaos

tidy: ## tidy go.mod and go.sum
	@$(call each,go mod tidy)

check: ## run everything that CI runs
	.ci/run
