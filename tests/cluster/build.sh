#!/usr/bin/env bash
# build.sh [suite]: Kubernetes, the stock sidecars and Helm, or else upstream's storage suite, from their Go modules; prints
# the folder. ORLOP_KUBERNETES=1.34 says an older Kubernetes, of those whose modules kube/go-*.mod lists.
#
# Cold it takes a quarter of an hour on two free cores. The folder is named by all that goes into it, so a second run
# takes no time, and Go's own cache is not needed again.
set -euo pipefail
cd "$(dirname "$0")"

cache=${ORLOP_CACHE:-${HOME:?}/.cache/orlop}
part=${1:-kubernetes}
# One set of flags for everything: what is compiled with others is compiled again.
flags=-buildvcs=false
export CGO_ENABLED=0
modules=go${ORLOP_KUBERNETES:+-$ORLOP_KUBERNETES}
key=$({ go version; cat build.sh "kube/$modules".{mod,sum} tools/go.{mod,sum} kube/main.go kube/e2e/e2e_test.go; } | sha256sum | cut -c1-16)
home=$cache/$part-$key
mkdir -p "$cache"
exec 9>"$cache/kubernetes.lock"
flock 9
if [ -d "$home" ]; then
    echo "$home"
    exit
fi

making=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$making"' EXIT
build() { go build -trimpath -ldflags "-s -w ${stamp:-}" -o "$making/" "$@" >&2; }

cd kube
export GOFLAGS="$flags -modfile=$modules.mod"
case $part in
kubernetes)
    version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
    minor=${version#v1.}
    stamp=
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        stamp+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    done
    build .
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
        ln -s kube "$making/$name"
    done
    cd ../tools
    stamp= GOFLAGS=$flags
    go list tool | while read -r tool; do build "$tool"; done
    # The requests that a cluster with snapshots knows, as the module of the sidecars has them.
    cp -r "$(go list -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)/config/crd" "$making/crd"
    chmod -R u+w "$making/crd"
    ;;
suite)
    go list tool | while read -r tool; do build "$tool"; done
    go test -c -trimpath -ldflags "-s -w" -o "$making/e2e.test" ./e2e >&2
    ;;
*) echo "usage: $0 [suite]" >&2 && exit 2 ;;
esac
chmod 755 "$making"
mv -T "$making" "$home"
trap - EXIT
echo "$home"
