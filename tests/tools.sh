#!/bin/sh
# Installs what the tests need and the machine lacks, from Debian's packages.
set -eu

missing=""
need() {
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need cc gcc
need chromium chromium
need openssl openssl
need systemd-analyze systemd
need curl curl
[ -n "$missing" ] || exit 0

echo "installing:$missing"
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
