{{/* What every object is labelled with. */}}
{{- define "orlop.labels" -}}
app.kubernetes.io/name: orlop
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What the pods of a part are found by; never changed, as a workload can not change it. */}}
{{- define "orlop.selector" -}}
app.kubernetes.io/name: orlop
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "orlop.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The directories of the host that pools are in. */}}
{{- define "orlop.directories" -}}
{{- $found := list }}
{{- range .Values.pools }}
{{- with (.directory | default .btrfs) }}{{ $found = append $found .path }}{{ end }}
{{- end }}
{{- $found | uniq | toJson }}
{{- end }}

{{/* The stock sidecars, beside whatever serves CSI on /csi/csi.sock: of one node, or of all by the router. */}}
{{- define "orlop.sidecars" -}}
{{- $values := .root.Values }}
{{- $of := ternary (list "--node-deployment") (list "--leader-election" "--leader-election-namespace=$(POD_NAMESPACE)") .ofNode }}
- name: provisioner
  image: {{ $values.sidecars.provisioner }}
  imagePullPolicy: {{ $values.sidecars.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --timeout=60s
    - --extra-create-metadata
    - --enable-capacity
    - --capacity-ownerref-level={{ ternary 1 2 .ofNode }}
    - --capacity-poll-interval=10s
    - --kube-api-qps=100
    - --kube-api-burst=200
    - --retry-interval-max=30s
    {{- if .ofNode }}
    - --node-deployment-base-delay=1s
    - --node-deployment-max-delay=10s
    {{- else }}
    - --immediate-topology=false
    {{- end }}
    {{- toYaml $of | nindent 4 }}
  {{- include "orlop.sidecar" . | nindent 2 }}
{{- if $values.snapshots.enabled }}
- name: snapshotter
  image: {{ $values.sidecars.snapshotter }}
  imagePullPolicy: {{ $values.sidecars.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --timeout=60s
    - --extra-create-metadata
    - --kube-api-qps=100
    - --kube-api-burst=200
    - --retry-interval-max=30s
    {{- toYaml $of | nindent 4 }}
  {{- include "orlop.sidecar" . | nindent 2 }}
{{- end }}
{{- if not .ofNode }}
- name: resizer
  image: {{ $values.sidecars.resizer }}
  imagePullPolicy: {{ $values.sidecars.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --timeout=60s
    - --kube-api-qps=100
    - --kube-api-burst=200
    - --retry-interval-max=30s
    {{- toYaml $of | nindent 4 }}
  {{- include "orlop.sidecar" . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What the sidecars have in common. The node's socket is root's alone. */}}
{{- define "orlop.sidecar" -}}
env:
  - { name: NODE_NAME, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
  - { name: NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
  - { name: POD_NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
  - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
securityContext:
  {{- if .ofNode }}
  runAsUser: 0
  {{- end }}
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
resources:
  {{- toYaml .root.Values.sidecars.resources | nindent 2 }}
volumeMounts:
  - { name: socket, mountPath: /csi }
{{- end }}
