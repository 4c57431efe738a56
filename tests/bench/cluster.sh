#!/bin/sh
# Runs the benchmark of a cluster: servers on core 0, Redis and the load on core 1.
set -eu
cd "$(dirname "$0")/../.."

ulimit -n "$(ulimit -Hn)"
exec taskset -c 1 target/release/bench-cluster "$@"
