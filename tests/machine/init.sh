#!/bin/bash
# The first process of the guest's root: makes it a machine with udev, and runs one command line after the other that
# comes in by the port `orlop`, until the port is closed. Each answer ends with a line `orlop-exit CODE`.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C ORLOP_GUEST=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o size=75% tmp /tmp
mkdir -p /dev/pts /dev/shm /run/lock /run/lvm /run/udev
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -snf /proc/self/fd /dev/fd
ln -sf /proc/self/mounts /etc/mtab
hostname guest
ip link set lo up

# Disks are known by their serials: their letters follow no order.
disk() {
    for at in /sys/block/vd*; do
        [ "$(cat "$at/serial" 2>/dev/null)" = "$1" ] && echo "/dev/${at##*/}"
    done
}
mount -t erofs -o ro "$(disk modules)" /usr/lib/modules
mount -t erofs -o ro "$(disk payload)" /payload
modprobe -aq virtio_console virtio_rng loop
/lib/systemd/systemd-udevd --daemon 2>/dev/null
udevadm trigger --type=subsystems --action=add
udevadm trigger --type=devices --action=add --subsystem-match=block --subsystem-match=virtio-ports
udevadm settle -t 60
mkdir -p /dev/disk/serial
for at in /sys/block/vd*; do ln -s "/dev/${at##*/}" "/dev/disk/serial/$(cat "$at/serial")"; done

# The payload's files are looked for where cargo put them.
while IFS=$'\t' read -r name place; do
    mkdir -p "${place%/*}"
    ln -sf "/payload/$name" "$place"
done </payload/links

for at in /sys/class/virtio-ports/*; do
    [ "$(cat "$at/name")" = orlop ] && port=/dev/${at##*/}
done
# A port takes one opener: it is held here, and what runs only inherits it.
exec 9<>"$port"
echo "orlop-ready $(uname -r) after $(cut -d' ' -f1 /proc/uptime) s" >&9
while read -r line <&9; do
    # For the console, which is all that a guest that hangs leaves.
    echo "<3>orlop: $line" >/dev/kmsg
    bash -c "$line" >&9 2>&1 9>&- </dev/null
    echo "orlop-exit $?" >&9
done
sync
echo o >/proc/sysrq-trigger
sleep 60
