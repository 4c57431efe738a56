#!/bin/sh
# Runs the proxy's benchmark: proxies on core 0, the application and the load on core 1, enough files
# for 10,000 connections.
set -eu
cd "$(dirname "$0")/../.."

for program in nginx haproxy h2load taskset; do
    command -v "$program" >/dev/null || {
        echo "bench-proxy: $program is missing: apt-get install nginx-light haproxy nghttp2-client util-linux" >&2
        exit 1
    }
done
ulimit -n "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt 10300 ]; then
    echo "bench-proxy: needs 10,300 open files, the limit is $(ulimit -n)" >&2
    exit 1
fi
exec taskset -c 1 target/release/bench-proxy "$@"
