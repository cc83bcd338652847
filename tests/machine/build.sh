#!/usr/bin/env bash
# Builds the guest of the machine rung, a stock Debian 12 with its cloud kernel, and prints the directory that holds it:
# vmlinuz, stage1.cpio, root.erofs, modules.erofs and its content in lib/modules, and the versions in `kernel` and `zfs`.
# A second call finds it. Its name is the hash of these scripts: once built, its kernel is pinned by it, whatever apt has.
# Exit 75: this machine can not, the last line says why.
set -euo pipefail
cd "$(dirname "$0")"
cache=${ORLOP_CACHE:-$HOME/.cache/orlop}
guest=$cache/machine-$(cat build.sh zfs.sh stage1.sh init.sh | sha256sum | cut -c1-16)
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH=$PATH:/usr/sbin:/sbin

say() { echo "machine: $*" >&2; }
cannot() { say "$@"; keep; exit 75; }
# A guest without ZFS is a guest: if no other can be built now, it is the one.
keep() {
    [ -e "$guest/done" ] || return 0
    say "the guest stays without ZFS, which is tried again in a day"
    echo "$guest"
    exit 0
}

mkdir -p "$cache"
exec 8>"$cache/machine.lock"
flock 8

# On this machine: what boots the guest, and what makes it.
[ "$(uname -m)" = x86_64 ] || cannot "the guest is built for x86_64 only"
missing=
for pair in qemu-system-x86_64:qemu-system-x86 mkfs.erofs:erofs-utils mmdebstrap:mmdebstrap depmod:kmod cpio:cpio busybox:busybox-static; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || cannot "it needs$missing, and there is no apt to install them"
    [ "$(id -u)" = 0 ] || cannot "it needs$missing, and only root can install them"
    say "installing$missing"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >"$cache/machine.log" 2>&1 ||
        cannot "apt could not install$missing: see $cache/machine.log"
fi
if [ -e "$guest/done" ]; then
    if [ ! -e "$guest/without-zfs" ] || [ -n "$(find "$guest/without-zfs" -mmin -1440)" ]; then
        echo "$guest"
        exit 0
    fi
    touch "$guest/without-zfs"
    say "the ZFS modules could not be built a day ago: trying again"
fi
[ "$(id -u)" = 0 ] || cannot "building the guest needs root"
say "building the guest, about two minutes without ZFS"
find "$cache" -maxdepth 1 -name 'machine-????????????????' ! -path "$guest" -mtime +2 -exec rm -rf {} +

# Made aside and renamed, so that a build that was cut off is no guest.
making=$guest.making
rm -rf "$making"
mkdir -p "$making"
exec 3>"$making/log"
root=$making/root
trap 'say "the end of its log:"; tail -n 20 "$making/log" >&2; keep' ERR

# The repositories of this machine, with contrib for ZFS.
repository() {
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$1" '$1 == release && $2 == "main" && !found { print $3; found = 1 }'
}
main=$(repository bookworm)
security=$(repository bookworm-security)
[ -n "$main" ] || cannot "the guest is made of Debian 12 (bookworm), which apt does not know here"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
{
    echo "deb [signed-by=$keyring] $main bookworm main contrib"
    [ -z "$security" ] || echo "deb [signed-by=$keyring] $security bookworm-security main contrib"
} >"$making/sources.list"

# Unpacked and not configured, which takes a fifth of the time, and mended where that shows.
packages="base-files base-passwd libc-bin bash dash coreutils util-linux util-linux-extra mount sed grep mawk findutils
    tar gzip diffutils hostname procps kmod udev iproute2 busybox-static acl attr quota
    e2fsprogs xfsprogs btrfs-progs lvm2 thin-provisioning-tools dmsetup cryptsetup-bin zfsutils-linux postgresql-15
    linux-image-cloud-amd64"
mmdebstrap --mode=root --variant=extract --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' --include="$(echo $packages | tr ' ' ',')" \
    bookworm "$root" "$making/sources.list" >&3 2>&1
for d in bin sbin lib lib64; do
    [ -L "$root/$d" ] && continue
    mkdir -p "$root/usr/$d"
    cp -a "$root/$d/." "$root/usr/$d/"
    rm -rf "${root:?}/$d"
    ln -s "usr/$d" "$root/$d"
done
kernel=$(ls "$root/usr/lib/modules")
echo "$kernel" >"$making/kernel"
zfs=("$root"/usr/share/doc/zfsutils-linux/changelog.Debian.gz)
zcat "${zfs[0]}" | awk 'NR == 1 { gsub(/[()]/, "", $2); print $2 }' >"$making/zfs"

# ZFS takes longest, so it is kept for itself. A guest without it is a guest.
modules=$cache/zfs-$kernel-$(tr ':~' '__' <"$making/zfs").tar
if [ ! -s "$modules" ]; then
    say "building the ZFS modules for $kernel, about six minutes"
    ./zfs.sh "$kernel" "$making/sources.list" "$modules" >&3 2>&1 || {
        touch "$making/without-zfs"
        say "the ZFS modules could not be built, what needs them is skipped for a day: see $guest/log"
    }
fi
cp "$root/boot/vmlinuz-$kernel" "$making/vmlinuz"
rm -rf "$root"/boot "$root"/var/cache "$root"/var/lib/{apt,dpkg} "$root"/usr/lib/{python3*,udev/hwdb.*} \
    "$root"/usr/share/{doc,man,locale,info,zoneinfo,perl*} "$root"/usr/bin/{perl*,python3*} "$root"/usr/sbin/xfs_scrub \
    "$root"/usr/lib/x86_64-linux-gnu/{perl*,libperl*,gconv,libsqlite3*,libdb-5*,libLLVM*} \
    "$root"/usr/lib/postgresql/15/lib/{llvmjit*,bitcode}
# A shell script for each event of each device, for names of disks by their slots: most of what LVM waited for.
rm "$root/usr/lib/udev/rules.d/69-vdev.rules"
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
# The groups that udev's rules name.
{
    cat "$root/usr/share/base-passwd/group.master"
    printf '%s:x:%s:\n' input 101 kvm 102 render 103 sgx 104
} >"$root/etc/group"
ln -sf mawk "$root/usr/bin/awk"
ln -sf bash "$root/usr/bin/sh"
mkdir -p "$root"/{proc,sys,dev,run,tmp,mnt,root,payload}
ldconfig -r "$root"
install -m755 init.sh "$root/init"

# Only the modules that a test could want.
wanted="virtio_pci virtio_blk virtio_console virtio_rng virtio_scsi sd_mod loop erofs overlay xfs btrfs fuse
    quota_v1 quota_v2 dm_mod dm_thin_pool dm_snapshot dm_crypt dm_mirror dm_raid dm_integrity dm_verity dm_cache
    dm_writecache dm_zero dm_flakey dm_delay dm_log_writes dm_era raid0 raid1 raid10 raid456 xts ecb cbc essiv aesni_intel
    algif_skcipher algif_hash cryptd crc32c_intel configfs null_blk scsi_debug brd nbd zfs"
all=$making/all
mkdir -p "$all/lib"
mv "$root/usr/lib/modules" "$all/lib/modules"
mkdir "$root/usr/lib/modules"
[ ! -s "$modules" ] || { mkdir "$all/lib/modules/$kernel/zfs" && tar -C "$all/lib/modules/$kernel/zfs" -xf "$modules"; }
depmod -b "$all" "$kernel"
needed() {
    for module in "$@"; do
        modprobe -d "$all" -S "$kernel" --show-depends "$module" 2>/dev/null
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}
{
    # shellcheck disable=SC2086 # a list of modules
    needed $wanted | sed "s#^$all/##"
    (cd "$all" && ls "lib/modules/$kernel"/modules.{builtin,builtin.modinfo,order})
} | tar -C "$all" -cf - -T - | tar -C "$making" -xf -
depmod -b "$making" "$kernel"
mkfs.erofs --quiet "$making/modules.erofs" "$making/lib/modules" >&3 2>&1

# The first stage finds the root and puts a layer in memory on it.
stage1=$making/stage1
mkdir -p "$stage1"/{bin,modules,proc,sys,dev}
cp "$(command -v busybox)" "$stage1/bin/busybox"
install -m755 stage1.sh "$stage1/init"
for module in $(needed virtio_pci virtio_blk erofs overlay); do
    cp "$module" "$stage1/modules/"
    basename "$module" >>"$stage1/modules.list"
done
(cd "$stage1" && find . | cpio -o -H newc --quiet) >"$making/stage1.cpio"

mkfs.erofs --quiet "$making/root.erofs" "$root" >&3 2>&1
rm -rf "$root" "$all" "$stage1"
touch "$making/done"
rm -rf "$guest"
mv "$making" "$guest"
say "the guest is built: kernel $kernel"
echo "$guest"
