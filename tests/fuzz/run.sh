#!/bin/sh
# Builds fuzz targets and runs each for so many seconds: run.sh SECONDS [TARGET…]; without a name, all.
set -eu
cd "$(dirname "$0")/../.."
seconds=$1
shift
[ $# -gt 0 ] || set -- $(ls tests/fuzz/targets | sed 's/\.rs$//')

command -v c++ >/dev/null 2>&1 || {
    echo "a C++ compiler is missing, which builds libFuzzer: apt-get install g++ (or clang)" >&2
    exit 1
}
host=$(rustc -vV | sed -n 's/^host: //p')
[ -n "$(find "$(rustc --print sysroot)/lib/rustlib/$host/lib" -name '*asan*')" ] || {
    echo "rustc has no AddressSanitizer for $host: install Rust by rustup, on Linux or macOS" >&2
    exit 1
}

# Sanitizers and coverage are not stable yet; the toolchain is the one that builds the product.
export RUSTC_BOOTSTRAP=1
coverage="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage="$coverage -Cllvm-args=-sanitizer-coverage-$option"
done
bins=""
for target in "$@"; do
    bins="$bins --bin $target"
done
# shellcheck disable=SC2086
RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cdebug-assertions -Coverflow-checks $coverage" \
    cargo build --release --locked --manifest-path tests/fuzz/Cargo.toml \
    --target "$host" --target-dir target/fuzz $bins

for target in "$@"; do
    echo "== $target, $seconds s"
    # What is found on the way is kept, and begins the next run.
    found=target/fuzz/corpus/$target
    seeds=tests/fuzz/corpus/$target
    mkdir -p "$found" target/fuzz/artifacts
    [ -d "$seeds" ] || seeds=
    # One input has ten seconds and one gigabyte; a reader that needs more of either is a finding.
    # shellcheck disable=SC2086
    "target/fuzz/$host/release/$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=1024 -malloc_limit_mb=64 -max_len=16384 -print_final_stats=1 \
        -artifact_prefix="target/fuzz/artifacts/$target-" "$found" $seeds || {
        echo "$target does not hold; once more with: target/fuzz/$host/release/$target FILE" >&2
        exit 1
    }
done
