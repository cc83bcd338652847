#!/usr/bin/env bash
# zfs.sh KERNEL SOURCES OUTPUT: builds the ZFS modules for this kernel of Debian from its own source package, in a root of
# its own, and leaves them in the tar OUTPUT, which appears whole or not at all.
set -euo pipefail
kernel=$1 sources=$2 output=$3
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH=$PATH:/usr/sbin:/sbin

# In memory, where there is enough of it.
place=${TMPDIR:-/tmp}
[ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 3000000 ] && place=/dev/shm
making=$(mktemp -d "$place/orlop-zfs-XXXXXX")
trap 'rm -rf "$making"' EXIT
root=$making/root

# dkms would build the same for every kernel that is installed, and more slowly: only its source is wanted.
packages="bash coreutils sed grep mawk findutils diffutils tar gzip xz-utils kmod make gcc gcc-12 binutils libc6-dev
    cpio file bc perl-base linux-headers-$kernel zfs-dkms"
mmdebstrap --mode=root --variant=extract --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' --include="$(echo $packages | tr ' ' ',')" bookworm "$root" "$sources"
for d in bin sbin lib lib64; do
    [ -L "$root/$d" ] && continue
    mkdir -p "$root/usr/$d"
    cp -a "$root/$d/." "$root/usr/$d/"
    rm -rf "${root:?}/$d"
    ln -s "usr/$d" "$root/$d"
done
ln -sf mawk "$root/usr/bin/awk"
ln -sf bash "$root/usr/bin/sh"
ldconfig -r "$root"
mkdir -p "$root/dev" "$root/tmp"
mv "$root"/usr/src/zfs-* "$root/zfs"
cat >"$root/build" <<EOF
set -e
cd /zfs
./configure -q --disable-dependency-tracking --with-config=kernel \
    --with-linux=/usr/src/linux-headers-${kernel%-cloud-amd64}-common --with-linux-obj=/usr/src/linux-headers-$kernel
make -s -j$(nproc)
mkdir /ko
find module -name '*.ko' -exec cp {} /ko/ ';'
strip -g /ko/*.ko
EOF
nice -n 5 chroot "$root" /bin/bash /build
tar -C "$root/ko" -cf "$output.making" .
mv "$output.making" "$output"
