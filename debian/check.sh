#!/bin/sh
# Installs the package in a Debian of its own (debootstrap, a chroot; as root), upgrades, removes and
# purges it, and looks after each step: debian/check.sh BINARY
# No service manager runs in there: what is checked is files, owners, the user, links of the units,
# and that the binary does its work where nothing else is installed.
set -eu
self=$(readlink -f "$0")
cd "$(dirname "$0")/.."
binary=$1
[ "$(id -u)" = 0 ] || { echo "debian/check.sh: a chroot takes root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "debian/check.sh: apt-get install debootstrap" >&2; exit 1; }

# What debootstrap mounts in there goes with this process.
[ "${APART:-}" = yes ] || exec env APART=yes unshare --mount "$self" "$@"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
. /etc/os-release
mirror=$(sed -n 's#^URIs: *\(http[^ ]*\).*#\1#p; s#^deb  *\(\[[^]]*\] *\)\{0,1\}\(http[^ ]*\).*#\2#p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
echo "a $VERSION_CODENAME of its own"
debootstrap --variant=minbase --include=init-system-helpers,adduser,ca-certificates \
    "$VERSION_CODENAME" "$root" "$mirror" >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"

inside() { chroot "$root" "$@"; }
must() { # WHAT COMMAND…
    what=$1
    shift
    "$@" || { echo "debian/check.sh: not so: $what" >&2; exit 1; }
    echo "  $what"
}
install_version() {
    cp "$(debian/build.sh "$binary" "$root/tmp" "$1")" "$root/tmp/vestibule.deb"
    inside dpkg -i /tmp/vestibule.deb
}
not() { ! "$@"; }

echo "install"
install_version 0.0.1
must "the binary runs" inside vestibule --version
must "the user is there" inside getent passwd vestibule
must "the folder is its group's alone" [ "$(inside stat -c '%a %U:%G' /etc/vestibule)" = "750 root:vestibule" ]
must "the socket is enabled" inside test -L /etc/systemd/system/sockets.target.wants/vestibule.socket
must "the service is enabled" inside test -L /etc/systemd/system/multi-user.target.wants/vestibule.service
must "the completions are there" inside test -s /usr/share/bash-completion/completions/vestibule

echo "upgrade"
printf 'hub: { namespaces: { /: { auth: none, events: deny } } }\n' >"$root/etc/vestibule/proxy.yaml"
must "a file is right" inside vestibule check -c /etc/vestibule/proxy.yaml
# As systemctl disable does.
inside rm /etc/systemd/system/multi-user.target.wants/vestibule.service
install_version 0.0.2
must "the file is as it was" inside grep -q "events: deny" /etc/vestibule/proxy.yaml
must "what was disabled stays so" not inside test -e /etc/systemd/system/multi-user.target.wants/vestibule.service

echo "remove"
inside dpkg -r vestibule
must "the binary is gone" not inside test -e /usr/bin/vestibule
must "the file stays" inside test -e /etc/vestibule/proxy.yaml

echo "purge"
inside mkdir -p /var/lib/vestibule
inside dpkg -P vestibule
must "its state is gone" not inside test -e /var/lib/vestibule
must "what somebody wrote stays" inside test -e /etc/vestibule/proxy.yaml
echo "passed"
