#!/bin/sh
# Runs the hub's benchmark: servers on core 0, load on core 1, enough files for 10,000 sockets.
set -eu
cd "$(dirname "$0")/../.."

ulimit -n "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt 10200 ]; then
    echo "bench-hub: needs 10,200 open files, the limit is $(ulimit -n)" >&2
    exit 1
fi
exec taskset -c 1 target/release/bench-hub "$@"
