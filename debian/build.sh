#!/bin/sh
# Builds a Debian package of a binary that is there: debian/build.sh BINARY FOLDER [VERSION]
# Prints the package's path. Needs dpkg-deb; nothing is installed, and nobody has to be root.
set -eu
cd "$(dirname "$0")/.."
binary=$1
folder=$2
version=${3:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
architecture=$(dpkg --print-architecture)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { # MODE SOURCE TARGET
    install -D -m "$1" "$2" "$root$3"
}
doc=/usr/share/doc/vestibule

put 755 "$binary" /usr/bin/vestibule
for unit in vestibule.service vestibule.socket; do
    sed 's#/usr/local/bin/#/usr/bin/#; /^#   /d; /^#$/d' "systemd/$unit" | install -D -m 644 /dev/stdin "$root/usr/lib/systemd/system/$unit"
done
put 644 systemd/vestibule.sysusers /usr/lib/sysusers.d/vestibule.conf
put 644 proxy.yaml "$doc/proxy.yaml"
put 644 README.md "$doc/README.md"
put 644 LICENSE "$doc/copyright"
put 644 docs/from-custom-server.md "$doc/from-custom-server.md"
put 644 docs/from-socket-server.md "$doc/from-socket-server.md"
for page in tls upgrade; do
    put 644 "docs/$page.md" "$doc/$page.md"
done
put 644 examples/grafana.json "$doc/examples/grafana.json"
install -d -m 755 "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
    "$root/usr/share/fish/vendor_completions.d"
"$binary" completions bash >"$root/usr/share/bash-completion/completions/vestibule"
"$binary" completions zsh >"$root/usr/share/zsh/vendor-completions/_vestibule"
"$binary" completions fish >"$root/usr/share/fish/vendor_completions.d/vestibule.fish"

"$binary" man | gzip -9n | install -D -m 644 /dev/stdin "$root/usr/share/man/man1/vestibule.1.gz"

# The oldest C library that has every symbol of it.
libc=$(objdump -T "$binary" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -V | tail -n 1)
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: vestibule
Version: $version
Architecture: $architecture
Maintainer: The Vestibule authors <vestibule@localhost>
Installed-Size: $(du -sk "$root/usr" | cut -f 1)
Depends: libc6 (>= $libc), libgcc-s1, init-system-helpers, adduser
Recommends: ca-certificates
Section: httpd
Priority: optional
Description: the edge of a self-hosted Next.js app
 One process that ends TLS, proxies HTTP to Next.js, and is the Socket.IO server
 of the app itself, with its configuration read again without a connection
 noticing.
CONTROL
for script in postinst prerm postrm; do
    install -m 755 "debian/$script" "$root/DEBIAN/$script"
done

mkdir -p "$folder"
package=$folder/vestibule_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
echo "$package"
