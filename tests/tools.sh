#!/bin/sh
# Installs what the tests need and the machine lacks, from Debian's packages; `demo`: what the demo needs.
set -eu

missing=""
need() {
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need cc "gcc libc6-dev"
need openssl openssl
need sqlite3 sqlite3
if [ "${1:-}" != demo ]; then
    need chromium chromium
    need curl curl
    need mariadbd mariadb-server
    need pebble pebble
    # Debian keeps PostgreSQL's server out of the path.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
    # Where only root's path leads.
    [ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
    need redis-server redis-server
    need redis-sentinel redis-sentinel
    need setpriv util-linux
    need strace strace
    need systemd-analyze systemd
    need testssl testssl.sh
    # The shell has a kill of its own; the tests run the program.
    env kill -l >/dev/null 2>&1 || missing="$missing procps"
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing here, and there is no apt-get to install it with:$missing" >&2
    exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "as root: apt-get install$missing" >&2; exit 1; }
    sudo=sudo
fi
echo "installing:$missing"
$sudo apt-get update -q
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
