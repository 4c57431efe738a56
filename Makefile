# make demo    the example app behind Vestibule, on https://localhost:8443
# make test    everything that is checked
# make build   the release binary, target/release/vestibule
# make bench-hub   the hub beside Node's socket.io and socketioxide; BENCH=--quick for two minutes

APP := examples/next-chat
NODE_TESTS := tests/node
BENCH_NODE := tests/bench/node
BENCH :=
export NEXT_TELEMETRY_DISABLED := 1

.PHONY: help build demo test check tools app bench-hub clean

help:
	@sed -n 's/^# //p' Makefile

build:
	cargo build --release --locked

demo: build app
	@examples/demo.sh

test: tools app $(NODE_TESTS)/node_modules/.package-lock.json check
	cargo test --locked --profile ci

check:
	cargo fmt --check
	cargo clippy --all-targets --locked --profile ci -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked --profile ci

# What the tests drive the edge with: a browser, and systemd's own tools.
tools:
	@tests/tools.sh

app: $(APP)/.next/BUILD_ID

$(APP)/.next/BUILD_ID: $(APP)/node_modules/.package-lock.json $(shell find $(APP)/app $(APP)/lib $(APP)/public -type f 2>/dev/null) $(APP)/next.config.ts
	cd $(APP) && npx next build

bench-hub: build $(BENCH_NODE)/node_modules/.package-lock.json
	cargo build --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target
	tests/bench/hub.sh $(BENCH)

%/node_modules/.package-lock.json: %/package.json %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	@touch $@

clean:
	cargo clean
	rm -rf $(APP)/.next $(APP)/node_modules $(NODE_TESTS)/node_modules $(BENCH_NODE)/node_modules demo
