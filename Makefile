# The two commands that a newcomer needs are make run and make test; both install
# what is missing. Everything is said by make help.

GO    ?= $(shell command -v go || echo /usr/local/go/bin/go)
ARGS  ?=
PKG   ?= ./...

# What people run is built, and judged, with this Go, which whatever Go is there
# fetches: the ones before have known vulnerabilities. Where it cannot be fetched, the
# one that is there has to do. Tests take that anyway, for the fault suite lays a clock
# of its own over Go's, and a fetched one is sealed.
GO_VERSION := go1.26.10
build lint: export GOTOOLCHAIN = $(shell GOTOOLCHAIN=$(GO_VERSION) $(GO) version >/dev/null 2>&1 && echo $(GO_VERSION) || echo local)

# Tools are built at these versions, once each, into bin/tools. The database of
# vulnerabilities is of the day in its version; take a newer one now and then.
GOLANGCI_LINT_VERSION := v2.15.0
SQLC_VERSION          := v1.31.1
GOVULNCHECK_VERSION   := v1.9.0
VULNDB_VERSION        := v0.0.0-20261105234957-e22db6528018
GOLANGCI_LINT := bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION)
SQLC          := bin/tools/sqlc-$(SQLC_VERSION)
GOVULNCHECK   := bin/tools/govulncheck-$(GOVULNCHECK_VERSION)
VULNDB        := bin/tools/vulndb-$(VULNDB_VERSION)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Programs that go runs (linters, generators) find the same go. The version is
# given by ldflags, so builds work where git distrusts the directory.
export PATH := $(patsubst %/,%,$(dir $(GO))):$(PATH)
export GOFLAGS := -buildvcs=false $(GOFLAGS)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z\/-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: postgres build ## Start Riverbeat with a private Postgres on 127.0.0.1:8080 (ARGS="--listen HOST:PORT")
	@exec bin/riverbeat dev $(ARGS)

.PHONY: build
build: go ## Build bin/riverbeat
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X riverbeat/cmd/command.version=$(VERSION)' -o bin/riverbeat ./cmd/riverbeat

# The race detector needs a C compiler.
.PHONY: test
test: go postgres compiler curl faketime celery beat systemd promtool ## Run every test, race detector on (PKG=./internal/tick, ARGS="-run TestX" for some)
	CGO_ENABLED=1 $(GO) test -race -count=1 $(ARGS) $(PKG)

.PHONY: lint
lint: $(GOLANGCI_LINT) $(GOVULNCHECK) $(VULNDB) ## Run the linters, and look for known vulnerabilities
	$(GOLANGCI_LINT) run
	$(GOVULNCHECK) -db file://$(CURDIR)/$(VULNDB) ./...

.PHONY: generate
generate: $(SQLC) ## Write what is made from other files: queries, docs/configuration.md
	$(SQLC) generate --file internal/postgres/sqlc.yaml
	$(GO) generate ./...

GENERATED := internal/postgres/internal/dbq docs/configuration.md
fingerprint = find $(GENERATED) -type f -exec cksum {} + | sort

# Fingerprints instead of git diff: they also judge what is not committed yet.
.PHONY: verify
verify: go $(SQLC) $(GOLANGCI_LINT) ## Check that generated files, formatting and go.mod are up to date, and vet
	@before="$$($(fingerprint))"; \
	$(MAKE) --no-print-directory generate || exit 1; \
	if [ "$$before" != "$$($(fingerprint))" ]; then \
		echo "verify: generated files were out of date; they are right now, so commit them:" >&2; \
		git status --porcelain -- $(GENERATED) >&2; \
		exit 1; \
	fi
	$(GOLANGCI_LINT) fmt --diff
	$(GO) mod tidy -diff
	$(GO) vet ./...

.PHONY: bench
bench: go postgres ## Measure against raw River on this machine
	$(GO) run ./internal/bench $(ARGS)

SEEDS ?= 1
SEED  ?= 0

.PHONY: faults
faults: go postgres ## Break nodes and Postgres in SEEDS=n random ways, and judge what ran (SEED=x to see one again)
	$(GO) test -count=1 -v -timeout 0 -run '$(if $(filter 0,$(SEED)),Test,TestRandomFaults)' ./internal/faults -args -seeds $(SEEDS) -seed $(SEED)

BASE ?=

.PHONY: upgrade
upgrade: go postgres ## Upgrade nodes of an older revision under load (BASE=rev), and judge what ran
	$(GO) test -count=1 -v -timeout 0 -run 'TestUpgrade$$' ./internal/faults -args -base '$(BASE)'

.PHONY: mutations
mutations: go postgres ## Break the product in eight places, and see that the fault suite notices
	$(GO) test -count=1 -v -timeout 0 -tags mutation -run 'TestMutations|TestExecuteLocksAlone' ./internal/faults

FUZZTIME ?= 20s

.PHONY: fuzz
fuzz: go postgres ## Run each fuzz target for 20 s (FUZZTIME=5m for longer)
	@set -e; grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd internal riverui 2>/dev/null \
	| sed 's/:func / /' | while read -r file target; do \
		echo "== $$target ($$file)"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
	done

.PHONY: clean
clean: ## Remove what was built, tools included
	rm -rf bin

# What must be there first.

.PHONY: go postgres compiler curl faketime celery beat systemd promtool
go:
	@$(GO) version >/dev/null 2>&1 || { echo "Go 1.26 or newer is needed: https://go.dev/dl/" >&2; exit 1; }

postgres compiler curl:
	@deploy/install-deps.sh $@

faketime:
	@deploy/install-deps.sh $@ || echo "without libfaketime the test of a database whose clock jumps is skipped" >&2

celery:
	@deploy/install-deps.sh $@ || echo "without Celery the test of deploy/python with it is skipped" >&2

beat:
	@deploy/install-deps.sh $@ || echo "without django-celery-beat the tests of the import are skipped" >&2

# Its test is skipped on no Linux.
systemd:
	@[ "$$(uname -s)" != Linux ] || deploy/install-deps.sh $@ || echo "without systemd-analyze the test of deploy/systemd fails" >&2

promtool:
	@deploy/install-deps.sh $@ || echo "without promtool the test that alerts fire is skipped" >&2

$(GOLANGCI_LINT): | go
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION),golangci-lint)

# Without cgo sqlc takes its parser of SQL from WASM, which needs no C compiler.
$(SQLC): | go
	$(call install,github.com/sqlc-dev/sqlc/cmd/sqlc@$(SQLC_VERSION),sqlc)

$(GOVULNCHECK): | go
	$(call install,golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION),govulncheck)

# Made of the module, which the proxy has for whoever cannot reach vuln.go.dev.
$(VULNDB): | go
	@echo "making the database of vulnerabilities, once; this takes a minute or two"
	@rm -rf $@.new
	@dir=$$(cd / && $(GO) mod download -json golang.org/x/vulndb@$(VULNDB_VERSION) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p') && \
	$(GO) run golang.org/x/vulndb/cmd/indexdb@$(VULNDB_VERSION) -vulns "$$dir/data/osv" -out $@.new
	@mv $@.new $@

# install builds package $(1), whose binary is called $(2), and moves it to the
# name with its version only when it is whole.
define install
	@echo "building $(1), once; this takes a minute or two"
	@CGO_ENABLED=0 GOBIN=$(CURDIR)/bin/tools/new $(GO) install $(1)
	@mv bin/tools/new/$(2) $@
endef
