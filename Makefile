# make demo    the example app behind Vestibule, on https://localhost:8443
# make test    everything that is checked
# make build   the release binary, target/release/vestibule
# make check   what needs no browser and no app: format, architecture, lints, docs
# make fuzz    hostile bytes for everything that reads a peer's; SECONDS=30 for each, FUZZ="packet query"
# make bench-hub   the hub beside Node's socket.io and socketioxide; BENCH=--quick takes two minutes
# make bench-auth  what sessions cost: known, unknown, and while their database is away
# make bench-cluster   two nodes over Redis beside Node's servers with the same adapter
# make bench-proxy the proxy beside Debian's nginx and HAProxy; BENCH="--rounds 3" takes a few minutes
# make deb    a Debian package of the release binary, in target/debian; `make deb-check` installs it in a chroot
# make soak    thousands of sockets for three minutes: nothing lost, twice or out of order; SOAK="--seconds 30"
# make chaos   2,000 clients on three nodes that are killed, over a Redis that fails: two minutes each
# make scan    sslyze against Mozilla's intermediate profile, beside testssl.sh, which `make test` runs too
# make clean   away with everything that was built or installed here

APP := examples/next-chat
NODE_TESTS := tests/node
BENCH_NODE := tests/bench/node
BENCH :=
SOAK :=
SECONDS := 30
FUZZ :=
CARGO := cargo
export NEXT_TELEMETRY_DISABLED := 1

.PHONY: help build demo test check tools app fuzz bench-hub bench-auth bench-cluster bench-proxy soak chaos deb deb-check scan clean rust node
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

build: rust
	$(CARGO) build --release --locked

demo: rust node
	@tests/tools.sh demo
	@$(MAKE) --no-print-directory build app
	@examples/demo.sh

# What is cheap to check comes first.
test: rust node tools check app $(NODE_TESTS)/node_modules/.package-lock.json \
		$(NODE_TESTS)/sessions/node_modules/.package-lock.json
	$(CARGO) test --locked --profile ci

check: rust
	$(CARGO) fmt --check
	$(CARGO) test --locked --profile ci --test architecture
	$(CARGO) clippy --all-targets --locked --profile ci -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --locked --profile ci

rust:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or later" >&2; exit 1; }

# Next.js 16 runs on Node 20.9 and later.
node:
	@command -v npm >/dev/null || { echo "node or npm is missing: install Node.js 20.9 or later" >&2; exit 1; }
	@node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 9) ? 0 : 1)' \
		|| { echo "node $$(node --version) is too old: install Node.js 20.9 or later" >&2; exit 1; }

# What the tests drive the edge with: a browser, curl, and systemd's own tools.
tools:
	@tests/tools.sh

# Next.js writes its BUILD_ID before it is done, so a mark of our own says that a build is whole.
app: $(APP)/.next/whole

$(APP)/.next/whole: $(APP)/node_modules/.package-lock.json $(APP)/next.config.ts $(APP)/instrumentation.ts \
		$(APP)/tsconfig.json \
		$(shell find $(APP)/app $(APP)/lib $(APP)/public -type f 2>/dev/null)
	cd $(APP) && node_modules/.bin/next build
	@touch $@

fuzz: rust
	@tests/fuzz/run.sh $(SECONDS) $(FUZZ)

bench-hub: build $(BENCH_NODE)/node_modules/.package-lock.json
	$(CARGO) build --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target
	@tests/bench/hub.sh $(BENCH)

bench-auth: build
	@ulimit -n "$$(ulimit -Hn)" && OUT=target/bench/auth.json node tests/bench/auth.mjs

bench-cluster: build $(NODE_TESTS)/node_modules/.package-lock.json
	$(CARGO) build --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target --bin bench-cluster
	@tests/bench/cluster.sh $(BENCH)

bench-proxy: build
	$(CARGO) build --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target --bin bench-proxy
	@tests/bench/proxy.sh $(BENCH)

deb: build
	@debian/build.sh target/release/vestibule target/debian

# A Debian of its own by debootstrap; as root.
deb-check: build
	debian/check.sh target/release/vestibule

soak: build
	$(CARGO) build --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target --bin soak
	@ulimit -n "$$(ulimit -Hn)" && target/release/soak $(SOAK)

chaos: rust node $(NODE_TESTS)/node_modules/.package-lock.json
	@ulimit -n "$$(ulimit -Hn)" && CHAOS_CLIENTS=2000 CHAOS_SECONDS=120 \
		$(CARGO) test --locked --profile ci --test edge -- --test-threads 1 --nocapture cluster_chaos::

# Not in Debian: a folder of its own, with Python's packages.
SSLYZE := target/sslyze/bin/sslyze

scan: rust tools $(SSLYZE)
	SSLYZE="$(abspath $(SSLYZE))" $(CARGO) test --locked --profile ci --test edge -- --nocapture tls_scan::

$(SSLYZE):
	python3 -m venv target/sslyze
	target/sslyze/bin/pip install --quiet sslyze==6.3.1

%/node_modules/.package-lock.json: %/package.json %/package-lock.json | node
	cd $* && npm ci --no-audit --no-fund
	@touch $@

clean:
	rm -rf target $(APP)/.next $(APP)/node_modules $(NODE_TESTS)/node_modules \
		$(NODE_TESTS)/sessions/node_modules $(BENCH_NODE)/node_modules demo
