#!/bin/sh
# tools.sh demo|test|cluster|bench: installs what the demo, the tests, those in a cluster or the benches need besides
# Rust. Elsewhere than on Debian, and without root, it says what is missing.
set -eu

PATH=$PATH:/usr/sbin:/sbin
missing=
# tool:package
demo="mkfs.ext4:e2fsprogs"
test="$demo dockerd:docker.io busybox:busybox-static mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs setfacl:acl setfattr:attr containerd:containerd skopeo:skopeo podman:podman chromedriver:chromium-driver prometheus:prometheus"
cluster="runc:runc containerd:containerd dockerd:docker.io mmdebstrap:mmdebstrap nft:nftables iptables:iptables busybox:busybox-static mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs"
bench="nginx:nginx-light ip:iproute2"
case ${1:-} in bench) pairs=$bench ;; demo) pairs=$demo ;; test) pairs=$test ;; cluster) pairs=$cluster ;; *) echo "usage: $0 demo|test|cluster|bench" >&2 && exit 2 ;; esac
for pair in $pairs; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ "$1" = cluster ]; then
    [ -e /usr/lib/cni/bridge ] || missing="$missing containernetworking-plugins"
else
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$missing postgresql"
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "orlop: please install$missing, as root, by your system's package manager; what needs them is skipped" >&2
    exit 0
fi
echo "orlop: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A cluster of its own is not wanted: the demo makes one on a volume.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
# shellcheck disable=SC2086 # a list of packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null
