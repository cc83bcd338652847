#!/bin/sh
# plugin.sh BINARY DIRECTORY: makes what `docker plugin create NAME DIRECTORY` takes: a built binary with this machine's tools for pools.
set -eu

here=$(dirname "$0")
binary=$1
out=$2
root=$out/rootfs
PATH=$PATH:/usr/sbin:/sbin
# Those without which a kind of pool or volume can not be; what is not installed here is not in the plugin, and said.
tools="mkfs.ext4 e2fsck resize2fs mkfs.xfs xfs_growfs mkfs.btrfs btrfs blkdiscard cryptsetup lvm thin_check zfs zpool"
names="lvs lvcreate lvchange lvextend lvremove lvrename"

# install_file FILE [AS]: with what it is linked with.
install_file() {
    install -D -m 755 "$1" "$root${2:-$1}"
    # What is linked with nothing makes ldd fail.
    ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || install -D -m 755 "$library" "$root$library"
    done || true
}

rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/mnt/orlop" "$root/var/lib/orlop" "$root/run/lock" "$root/tmp"
for merged in bin sbin lib lib64; do ln -s "usr/$merged" "$root/$merged"; done
for directory in dev proc sys etc; do mkdir "$root/$directory"; done
install_file "$binary" /usr/bin/orlop
missing=
for tool in $tools; do
    if path=$(command -v "$tool"); then
        install_file "$path" "/usr/sbin/$tool"
    else
        missing="$missing $tool"
    fi
done
if [ -e "$root/usr/sbin/lvm" ]; then
    for name in $names; do ln -s lvm "$root/usr/sbin/$name"; done
fi
[ ! -e /etc/mke2fs.conf ] || install -D -m 644 /etc/mke2fs.conf "$root/etc/mke2fs.conf"
install -D -m 644 "$here/../LICENSE" "$root/usr/share/doc/orlop/copyright"
install -m 644 "$here/plugin.json" "$out/config.json"
[ -z "$missing" ] || echo "plugin.sh: not in the plugin, as they are not installed here:$missing" >&2
