#!/usr/bin/env bash
# manifests.sh [--check]: writes deploy/kubernetes from the chart with its own values, for whom has no Helm; or checks that it
# is what the chart gives. Helm is built from its Go modules if there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${ORLOP_CACHE:-${HOME:?}/.cache/orlop}
helm=$(command -v helm || true)
if [ -z "$helm" ]; then
    key=$({ go version; cat tests/cluster/tools/go.sum; } | sha256sum | cut -c1-16)
    helm=$cache/helm-$key
    if [ ! -x "$helm" ]; then
        mkdir -p "$cache"
        CGO_ENABLED=0 GOFLAGS=-buildvcs=false go -C tests/cluster/tools build -trimpath -ldflags "-s -w" -o "$helm.$$" helm.sh/helm/v3/cmd/helm
        mv "$helm.$$" "$helm"
    fi
fi

manifests=deploy/kubernetes/orlop.yaml
rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
"$helm" lint --strict --quiet charts/orlop
# And with all that is left out by default, once with each place for what is cached.
for place in hostPath=/cache storageClass=orlop; do
    "$helm" lint --strict --quiet charts/orlop --set "layers.enabled=true,layers.cache.$place,layers.credentialsSecret=s" \
        --set layers.credentialProviders.config=/etc/providers.yaml,layers.credentialProviders.binDir=/opt/providers \
        --set controller.statusTokenSecret=s,networkPolicy.enabled=true,podMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true \
        --set 'pools[0].name=thick,pools[0].lvm.volumeGroup=vg0,certificates.issuer.name=company'
done
{
    echo "# Orlop in the namespace orlop, as charts/orlop gives it: kubectl apply --filename orlop.yaml"
    printf -- '---\napiVersion: v1\nkind: Namespace\nmetadata: { name: orlop, labels: { pod-security.kubernetes.io/enforce: privileged } }\n'
    "$helm" template orlop charts/orlop --namespace orlop --kube-version 1.37.0 --api-versions snapshot.storage.k8s.io/v1
} >"$rendered"
if [ "${1:-}" = --check ]; then
    diff -u "$manifests" "$rendered" || { echo "$manifests is not what the chart gives: run \`make manifests\`" >&2 && exit 1; }
else
    mkdir -p "${manifests%/*}"
    cp "$rendered" "$manifests"
fi
