#!/bin/sh
# up.sh: a kind cluster with Orlop on its three workers, and a claim in use. Needs docker, kind, kubectl and helm.
# `kind delete cluster --name orlop` ends it.
set -eu
cd "$(dirname "$0")/../.."
for tool in docker kind kubectl helm; do
    command -v "$tool" >/dev/null || { echo "please install $tool first" >&2 && exit 1; }
done

docker build --file deploy/Dockerfile --tag orlop:kind .
kind get clusters | grep -qx orlop || kind create cluster --config deploy/kind/cluster.yaml --wait 2m
kind load docker-image orlop:kind --name orlop
export KUBECONFIG="${TMPDIR:-/tmp}/orlop-kind.conf"
kind export kubeconfig --name orlop
snapshots=https://github.com/kubernetes-csi/external-snapshotter
kubectl apply --kustomize "$snapshots/client/config/crd?ref=v8.7.0"
kubectl apply --kustomize "$snapshots/deploy/kubernetes/snapshot-controller?ref=v8.7.0"
helm upgrade --install orlop charts/orlop --namespace orlop --create-namespace --values deploy/kind/values.yaml --wait
kubectl apply --filename deploy/examples/ephemeral.yaml
kubectl wait --for condition=Ready --timeout 2m pod/scratch
kubectl get pods,pvc,pv
echo "use it by: export KUBECONFIG=$KUBECONFIG"
