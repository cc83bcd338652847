#!/usr/bin/env bash
# bed.sh: a real Kubernetes cluster of several nodes on one machine.
#   hold N          control plane and nodes n1..nN; says "ready" when they are, and ends all when its input ends,
#                   so that whoever started it may be killed; nothing stays but logs and what the nodes have of images
#   in CMD...       runs CMD inside the cluster's namespaces (kubectl set up)
#   on NODE CMD...  runs CMD inside one node's namespaces
#   node-up NODE    starts a node (again)
#   node-kill NODE  power cut: every process of the node dies at once
# BED is where it keeps its state, BED_BIN has Kubernetes, BED_IMAGES the images (*.tar) that every node gets.
#
# The whole cluster is one PID, mount and network namespace, and each node again one inside it, so ending one process
# ends all and undoes all mounts. Nothing of it appears in the machine's own network.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${BED:?}" "${BED_BIN:?}" "${BED_IMAGES:?}"
export LC_ALL=C KUBECONFIG=$BED/conf/admin.conf PATH=$BED_BIN:$PATH:/usr/sbin:/sbin

controllers() { for c in /sys/fs/cgroup/*/; do [ -e "$c/cgroup.procs" ] && [ "$c" != /sys/fs/cgroup/unified/ ] && echo "$c"; done; }

make_cgroup() { # in every hierarchy; a cpuset must be filled before use
	for c in $(controllers); do
		mkdir -p "$c$1"
		if [ -e "$c$1/cpuset.cpus" ]; then
			p=$c
			for part in ${1//\// }; do
				for f in cpuset.cpus cpuset.mems; do cat "$p/$f" >"$p/$part/$f"; done
				p=$p/$part
			done
		fi
	done
}

join_cgroup() { make_cgroup "$1" && for c in $(controllers); do echo 0 >"$c$1/cgroup.procs"; done; }

drop_cgroup() { # runc makes them in the cgroup2 tree as well
	for c in /sys/fs/cgroup/*/; do
		[ -d "$c$1" ] || continue
		for _ in $(seq 50); do
			find "$c$1" -depth -type d -exec rmdir {} + 2>/dev/null && break
			sleep 0.1
		done
	done
}

cert() { # cert NAME SUBJECT [EXTENSIONS]: a key and a certificate of our CA
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -days 3650 -out "$1.crt" -extfile <(echo "${3:-}") 2>/dev/null
}

kubeconfig() { # kubeconfig NAME TOKEN
	cat >"$BED/conf/$1.conf" <<-YAML
		apiVersion: v1
		kind: Config
		current-context: bed
		clusters: [{name: bed, cluster: {server: "https://10.77.0.1:6443", certificate-authority: $BED/pki/ca.crt}}]
		users: [{name: bed, user: {token: $2}}]
		contexts: [{name: bed, context: {cluster: bed, user: bed}}]
	YAML
}

identities() {
	[ -e "$BED/conf/tokens.csv" ] && return
	mkdir -p "$BED"/{pki,conf}
	cd "$BED/pki"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bed -days 3650 -keyout ca.key -out ca.crt 2>/dev/null
	cert apiserver /CN=kube-apiserver 'subjectAltName=DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.77.0.1,IP:10.96.0.1'
	cert kubelet-client /O=system:masters/CN=apiserver
	openssl ecparam -name prime256v1 -genkey -noout -out sa.key
	local who token
	for who in admin:system:masters kube-controller-manager: kube-scheduler: kube-proxy: n{1..9}:system:nodes; do
		token=$(openssl rand -hex 16)
		case $who in
		admin:*) echo "$token,admin,admin,system:masters" ;;
		n?:*) echo "$token,system:node:${who%%:*},${who%%:*},system:nodes" ;;
		*) echo "$token,system:${who%%:*},${who%%:*}" ;;
		esac >>"$BED/conf/tokens.new"
		kubeconfig "${who%%:*}" "$token"
	done
	mv "$BED/conf/tokens.new" "$BED/conf/tokens.csv"
}

enter() { # enter CMD...: inside the cluster's namespaces
	nsenter -t "$(cat "$BED/pid")" -m -p -n -u --wdns="$PWD" -- "$@"
}

gates() { # gates IS SEPARATOR: those that this Kubernetes has, and that are not on by themselves
	local known gate list=
	known=$(kubelet --help)
	for gate in CSIVolumeHealth KubeletCrashLoopBackOffMax; do
		grep -q "$gate=" <<<"$known" && list+=${list:+$2}$gate$1true
	done
	echo "$list"
}

daemon() { # daemon NAME CMD...: in the background, logged, started again when it ends
	local name=$1
	shift
	local extra=BED_${1//-/_} # BED_kubelet="--v=4": more arguments for one program
	read -ra extra <<<"${!extra:-}"
	while :; do
		"$@" "${extra[@]}" || echo "$name ended: $?"
		sleep 1
	done >>"$BED/log/$name.log" 2>&1 </dev/null &
}

until_ok() { # until_ok SECONDS CMD...
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { echo "timed out: $*" >&2; return 1; }
		sleep 0.1
	done
}

child_of() { # the first child of a process (of unshare: PID 1 inside)
	until_ok 5 grep -q . "/proc/$1/task/$1/children"
	awk '{ print $1 }' "/proc/$1/task/$1/children"
}

control_plane() { # PID 1 of the cluster
	cd "$BED"
	join_cgroup orlop/control
	hostname bed
	ip link set lo up
	ip link add bed0 type bridge
	ip addr add 10.77.0.1/16 dev bed0
	ip link set bed0 up
	sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.bed0.send_redirects=0 net.bridge.bridge-nf-call-iptables=0
	daemon etcd etcd --data-dir="$BED/etcd" --unsafe-no-fsync --log-level=warn
	daemon apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --advertise-address=10.77.0.1 \
		--tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --token-auth-file=conf/tokens.csv \
		--kubelet-client-certificate=pki/kubelet-client.crt --kubelet-client-key=pki/kubelet-client.key \
		--kubelet-preferred-address-types=InternalIP --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
		--service-account-key-file=pki/sa.key --service-account-signing-key-file=pki/sa.key \
		--audit-policy-file="$here/audit.yaml" --audit-log-path="$BED/log/audit.log" \
		--service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=10.96.0.0/16 --allow-privileged \
		--default-not-ready-toleration-seconds=5 --default-unreachable-toleration-seconds=5 --feature-gates="$(gates = ,)"
	until_ok 180 curl -sf --cacert pki/ca.crt https://10.77.0.1:6443/readyz
	daemon controller-manager kube-controller-manager --kubeconfig=conf/kube-controller-manager.conf --leader-elect=false \
		--use-service-account-credentials --service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt \
		--node-monitor-period=1s --node-monitor-grace-period=10s --attach-detach-reconcile-sync-period=5s \
		--kube-api-qps=500 --kube-api-burst=500 --cluster-cidr=10.244.0.0/16
	daemon scheduler kube-scheduler --kubeconfig=conf/kube-scheduler.conf --leader-elect=false
	while :; do wait -n || sleep 1; done
}

node_start() { # in the cluster's namespaces: a namespace set per node, on our bridge
	local node=$1 i=${1#n}
	mkdir -p "$BED/nodes/$node"
	# One name: the kernel frees the old veth with the old namespace, a moment later.
	until_ok 20 bash -c "! ip link show bed-$node"
	# A reboot empties the cgroups; a stale one costs a starting kubelet 3 s each.
	drop_cgroup "orlop/$node"
	setsid unshare --mount --pid --net --uts --ipc --fork --kill-child --mount-proc \
		"$here/bed.sh" _node "$node" >>"$BED/log/$node.log" 2>&1 </dev/null 9>&- &
	local pid
	pid=$(child_of $!)
	ip link add "bed-$node" type veth peer name eth0 netns "$pid"
	ip link set "bed-$node" master bed0 up
	ip route replace "10.244.$i.0/24" via "10.77.0.1$i"
	echo "$pid" >"$BED/nodes/$node/pid"
}

load_images() { # on a node: every image tar that is new or changed; kept over `down`
	local image stamp
	for image in "$BED_IMAGES"/*.tar; do
		stamp=/var/lib/containerd/${image##*/}.stamp
		[ "$stamp" -nt "$image" ] && continue
		ctr -n k8s.io images import "$image" && touch "$stamp"
	done
}

mount_disk() { # mount_disk FILE AT: by a loop device that goes with the mount
	local loop
	loop=$(losetup --find --show "$1")
	blockdev --setrw "$loop" # if the last user of that number made it read-only, it still is
	mount "$loop" "$2"
	losetup --detach "$loop"
}

node() { # PID 1 of a node
	local node=$1 i=${1#n} dir=$BED/nodes/$1 d
	join_cgroup "orlop/$node/system"
	hostname "$node"
	mount -t tmpfs -o mode=755 run /run
	local rebooted=
	[ ! -d "$dir/kubelet" ] || rebooted=yes
	mkdir -p /run/lock "$dir"/{orlop,kubelet,containerd,cni,pods,containers,net.d,certs.d,registries.d,docker}
	for d in orlop:/var/lib/orlop kubelet:/var/lib/kubelet containerd:/var/lib/containerd cni:/var/lib/cni pods:/var/log/pods containers:/var/log/containers net.d:/etc/cni/net.d certs.d:/etc/containerd/certs.d registries.d:/etc/containers/registries.conf.d docker:/etc/docker; do
		mkdir -p "${d#*:}"
		mount --bind "$dir/${d%%:*}" "${d#*:}"
	done
	# The disks of the node: of the first one has twice the room of the others. A node of a loop device past the eighth is
	# made by whoever needs it.
	mkdir -p /var/lib/orlop/{default,disk,btrfs}
	[ -e "$dir/disk" ] || { truncate --size "$((i == 3 ? 2 : 1))G" "$dir/disk" && mkfs.xfs -q "$dir/disk"; }
	[ -e "$dir/btrfs" ] || { truncate --size 4G "$dir/btrfs" && mkfs.btrfs -q "$dir/btrfs"; }
	for d in $(seq 0 31); do [ -e "/dev/loop$d" ] || mknod "/dev/loop$d" b 7 "$d" || true; done
	for d in disk btrfs; do mount_disk "$dir/$d" "/var/lib/orlop/$d"; done
	mount --make-rshared /
	until_ok 10 ip link show eth0
	ip link set lo up
	ip addr add "10.77.0.1$i/16" dev eth0
	ip link set eth0 up
	ip route add default via 10.77.0.1
	# A pod reaches a service that is on its own node only if what the bridge passes is seen by the rules for it.
	sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
	cat >/etc/cni/net.d/10-bed.conflist <<-JSON
		{"cniVersion": "0.4.0", "name": "bed", "plugins": [
		  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
		   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.$i.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	JSON
	cat >"$dir/containerd.toml" <<-TOML
		version = 2
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "localhost/shell:1"
		  restrict_oom_score_adj = true
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/usr/lib/cni"
		  [plugins."io.containerd.grpc.v1.cri".registry]
		    config_path = "/etc/containerd/certs.d"
	TOML
	cat >"$dir/kubelet.yaml" <<-YAML
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		cgroupDriver: cgroupfs
		cgroupRoot: /orlop/$node
		failCgroupV1: false
		failSwapOn: false
		oomScoreAdj: 0
		enforceNodeAllocatable: [pods]
		evictionHard: {nodefs.available: 1%, imagefs.available: 1%}
		imageGCHighThresholdPercent: 100
		nodeStatusUpdateFrequency: 2s
		nodeLeaseDurationSeconds: 8
		syncFrequency: 5s
		crashLoopBackOff: {maxContainerRestartPeriod: 2s} # what is killed again and again must come back
		volumeStatsAggPeriod: 5s # and how often the health of volumes is asked for
		featureGates: {$(gates ': ' ', ')}
		clusterDNS: [10.96.0.10]
		clusterDomain: cluster.local
		authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $BED/pki/ca.crt}}
		authorization: {mode: Webhook}
	YAML
	daemon "$node-containerd" containerd --config "$dir/containerd.toml"
	until_ok 20 ctr version
	[ -n "$rebooted" ] || ctr -n k8s.io containers ls -q | xargs -r ctr -n k8s.io containers rm # an earlier cluster's
	load_images
	cat >"$dir/proxy.yaml" <<-YAML
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: nftables
		clientConnection: {kubeconfig: $BED/conf/kube-proxy.conf}
		oomScoreAdj: 0
		conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
		nftables: {minSyncPeriod: 100ms}
	YAML
	daemon "$node-proxy" kube-proxy --config="$dir/proxy.yaml"
	daemon "$node-kubelet" kubelet --config="$dir/kubelet.yaml" --kubeconfig="$BED/conf/$node.conf" --node-ip="10.77.0.1$i"
	while :; do wait -n || sleep 1; done
}

node_pid() { cat "$BED/nodes/$1/pid"; }

up() { # up N
	rm -rf "$BED/log"
	mkdir -p "$BED"/{log,nodes}
	identities
	setsid unshare --mount --pid --net --uts --fork --kill-child --mount-proc "$here/bed.sh" _control >"$BED/log/init.log" 2>&1 </dev/null 9>&- &
	child_of $! >"$BED/pid"
	until_ok 30 enter ip addr show bed0
	for i in $(seq "$1"); do enter "$here/bed.sh" _node-start "n$i"; done
	until_ok 300 enter kubectl wait --for=condition=Ready --timeout=0 $(seq -f node/n%g "$1")
	until_ok 20 enter kubectl get serviceaccount default # no pod is admitted before
}

free_loops() { # the disks of the nodes, and the volumes on them: a loop device outlives whoever made it
	local disk outer inner inode device here
	here=$(stat --format %Hd:%Ld "$BED")
	losetup --list --noheadings --output NAME,BACK-INO,BACK-MAJ:MIN | while read -r inner inode device; do
		[ "$device" != "$here" ] || [ -z "$(find "$BED"/nodes/*/orlop/default -inum "$inode" 2>/dev/null)" ] || losetup --detach "$inner"
	done
	for disk in "$BED"/nodes/*/{disk,btrfs}; do
		[ -e "$disk" ] || continue
		for outer in $(losetup --noheadings --output NAME --associated "$disk"); do
			losetup --list --noheadings --output NAME,BACK-MAJ:MIN |
				awk -v on="$(cat "/sys/block/${outer#/dev/}/dev")" '$2 == on { print $1 }' |
				while read -r inner; do losetup --detach "$inner"; done
			losetup --detach "$outer" 2>/dev/null || true # it may go by itself with the last volume on it
		done
	done
}

down() {
	local pid
	pid=$(cat "$BED/pid" 2>/dev/null || true)
	# After a reboot of the machine the number may be another's.
	if [ -n "$pid" ] && grep -qs :/orlop/control "/proc/$pid/cgroup"; then
		kill -9 "$pid"
		until_ok 20 test ! -d "/proc/$pid"
	fi
	free_loops
	drop_cgroup orlop
	rm -rf "$BED"/{pid,etcd} "$BED"/nodes/*/{pid,disk,btrfs,orlop,kubelet,cni,pods,containers,net.d,certs.d,registries.d,docker}
}

case ${1:-} in
hold)
	mkdir -p "$BED"
	exec 9>"$BED/lock" # one cluster at a time
	flock 9
	down
	trap down EXIT
	up "$2"
	echo ready
	cat >/dev/null # until its other end is closed
	;;
in) shift && enter "$@" ;;
on)
	node=$2
	shift 2
	enter nsenter -t "$(node_pid "$node")" -m -p -n -u -i --wdns="$PWD" -- "$@"
	;;
node-up) enter "$here/bed.sh" _node-start "$2" ;;
node-kill) enter kill -9 "$(node_pid "$2")" ;;
_control) control_plane ;;
_node-start) node_start "$2" ;;
_node) node "$2" ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
