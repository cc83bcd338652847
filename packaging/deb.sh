#!/bin/sh
# deb.sh BINARY DIRECTORY: makes the Debian package of a built binary, with the units of its roles and a pools file.
set -eu

here=$(dirname "$0")
binary=$1
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../Cargo.toml" | head -n 1)
architecture=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

install -D -m 755 "$binary" "$root/usr/bin/orlop"
install -D -m 644 -t "$root/lib/systemd/system" "$here"/orlop-*.service "$here"/orlop-*.socket
install -D -m 644 "$here/pools.yaml" "$root/etc/orlop/pools.yaml"
install -D -m 644 "$here/../LICENSE" "$root/usr/share/doc/orlop/copyright"
install -d -m 700 "$root/var/lib/orlop/default"
install -d "$root/usr/share/man/man1" "$root/usr/share/bash-completion/completions" \
    "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d"
"$binary" man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1
"$binary" completions bash >"$root/usr/share/bash-completion/completions/orlop"
"$binary" completions zsh >"$root/usr/share/zsh/vendor-completions/_orlop"
"$binary" completions fish >"$root/usr/share/fish/vendor_completions.d/orlop.fish"
mkdir "$root/DEBIAN"
echo /etc/orlop/pools.yaml >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<CONTROL
Package: orlop
Version: $version
Architecture: $architecture
Maintainer: Orlop <orlop@localhost>
Section: admin
Priority: optional
Depends: libc6, e2fsprogs
Suggests: btrfs-progs, cryptsetup-bin, docker.io, lvm2, xfsprogs, zfsutils-linux
Description: persistent volumes from the disks of this machine
 A CSI driver in one binary, and a volume plugin for Docker. Nothing is started: say
 .
  systemctl enable --now orlop-node orlop-docker
CONTROL
dpkg-deb --root-owner-group --build "$root" "$2/orlop_${version}_$architecture.deb"
