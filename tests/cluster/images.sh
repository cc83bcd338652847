#!/usr/bin/env bash
# images.sh BINARIES ORLOP OUT [SUITE]: the cluster's images as tar files in OUT, made by a Docker Engine of our own; with
# those of upstream's suite, if it is given.
#
# There is no registry: Orlop's image is built by its Dockerfile on a Debian made here, and what else runs in the
# cluster is put into an image as it is, under the name that the chart or the upstream suite asks for.
set -euo pipefail
binaries=$1 orlop=$2 out=$3 suite=${4:-}
cd "$(dirname "$0")/../.."
cache=${ORLOP_CACHE:-${HOME:?}/.cache/orlop}
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

sidecars=$(sed -n 's/^ *\(provisioner\|snapshotter\|resizer\): //p' charts/orlop/values.yaml)
others=$(cat tests/cluster/images.sh - <<<"$sidecars" | sha256sum | cut -c1-16)-${binaries##*/}-${suite##*/}
ours=$(cat tests/cluster/images.sh deploy/Dockerfile "$orlop" | sha256sum | cut -c1-16)
if [ "$(cat "$out/others" "$out/ours" 2>/dev/null)" = "$others"$'\n'"$ours" ]; then
    exit
fi

work=$(mktemp -d /tmp/orlop-docker.XXXXXX)
mkdir -p "$cache/docker" "$out"
exec 9>"$cache/docker.lock"
flock 9
daemon=
finish() {
    [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon"; } || true
    rm -rf "$work"
}
trap finish EXIT
dockerd --iptables=false --bridge=none --data-root "$cache/docker" --exec-root "$work/exec" --pidfile "$work/pid" \
    --host "unix://$work/sock" >"$work/log" 2>&1 9>&- &
daemon=$!
docker() { command docker --host "unix://$work/sock" "$@"; }
for _ in $(seq 300); do
    docker version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || { tail -n 5 "$work/log" >&2 && exit 1; }
    sleep 0.1
done

packages=$(sed -n 's/^ARG PACKAGES="\(.*\)"$/\1/p' deploy/Dockerfile)
base=orlop-base:$(sha256sum <<<"$packages" | cut -c1-16)
if ! docker image inspect "$base" >/dev/null 2>&1; then
    main=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "bookworm" && $2 == "main" && !found { print $3; found = 1 }')
    mmdebstrap --quiet --variant=minbase --include="${packages// /,}" --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io bookworm "$work/base.tar" "$main" >&2
    docker import "$work/base.tar" "$base" >/dev/null
fi

# save NAME...: the image of the first name under all of them.
save() {
    docker save --output "$out/.new" "$@"
    mv "$out/.new" "$out/$(tr -c 'a-z0-9.\n' - <<<"${1##*/}").tar"
}

# program NAME FILE COMMAND-JSON ALIAS...: busybox and one program.
program() {
    local name=$1 file=$2 command=$3 root=$work/root alias applet
    shift 3
    rm -rf "$root"
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,tmp,root,var,proc,sys,dev,uploads}
    chmod 1777 "$root/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnobody:x:65534:\n' >"$root/etc/group"
    [ -z "$file" ] || cp "$file" "$root/"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$root" -c . |
        docker import --change "$command" - "$name" >/dev/null
    for alias in "$@"; do docker tag "$name" "$alias"; done
    save "$name" "$@"
}

context=$work/context
mkdir "$context"
strip --strip-debug -o "$context/orlop" "$orlop"
DOCKER_BUILDKIT=0 docker build --quiet --network none --build-arg BASE="$base" --build-arg BINARY=orlop \
    --tag orlop:test --file deploy/Dockerfile "$context" >&2
save orlop:test
echo "$ours" >"$out/ours"

[ "$(cat "$out/others" 2>/dev/null)" != "$others" ] || exit 0
# The sandbox's image, and what a shell runs in: the names that the upstream suite asks for too.
upstream=registry.k8s.io/e2e-test-images
pause='CMD ["/bin/sh", "-c", "trap \"exit 0\" TERM INT; while :; do sleep 3600 & wait $!; done"]'
program localhost/shell:1 '' "$pause" registry.k8s.io/pause:3.10.2 $upstream/busybox:1.37.0-2 $upstream/nginx:1.27.0-2
if [ -n "$suite" ]; then
    program $upstream/agnhost:2.66.1 "$suite/agnhost" 'ENTRYPOINT ["/agnhost"]'
    # It is there for a Debian's `dd`, which can write past the page cache.
    docker tag "$base" $upstream/glibc-dns-testing:2.1.1
    save $upstream/glibc-dns-testing:2.1.1
fi
for sidecar in $sidecars; do
    name=${sidecar##*/}
    program "$sidecar" "$binaries/${name%:*}" "ENTRYPOINT [\"/${name%:*}\"]"
done
program localhost/snapshot-controller:1 "$binaries/snapshot-controller" 'ENTRYPOINT ["/snapshot-controller"]'
echo "$others" >"$out/others"
