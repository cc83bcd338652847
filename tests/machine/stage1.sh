#!/bin/busybox sh
# The first process of the guest: finds the root by its serial, puts a layer in memory on it, and goes there.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules.list); do $b insmod "/modules/$module" 2>/dev/null; done
tries=0
while [ -z "$root" ] && [ $tries -lt 200 ]; do
    for disk in /sys/block/*; do
        [ "$($b cat "$disk/serial" 2>/dev/null)" = root ] && root=/dev/${disk##*/}
    done
    tries=$((tries + 1))
    [ -n "$root" ] || $b sleep 0.05
done
$b mkdir -p /lower /upper /new
$b mount -t erofs -o ro "$root" /lower || exec $b poweroff -f
$b mount -t tmpfs -o size=75% upper /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /new || exec $b poweroff -f
$b mount --move /dev /new/dev
$b umount /sys
$b umount /proc
exec $b switch_root /new /init
