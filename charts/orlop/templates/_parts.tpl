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

{{/* The stock sidecars beside the node, whose socket they have as /csi/csi.sock. */}}
{{- define "orlop.sidecars" -}}
{{- $values := .Values }}
- name: provisioner
  image: {{ $values.sidecars.provisioner }}
  imagePullPolicy: {{ $values.sidecars.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --timeout=60s
    - --extra-create-metadata
    - --enable-capacity
    - --capacity-ownerref-level=1
    - --capacity-poll-interval=10s
    - --kube-api-qps=100
    - --kube-api-burst=200
    - --retry-interval-max=30s
    - --node-deployment
    - --node-deployment-base-delay=1s
    - --node-deployment-max-delay=10s
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
    - --node-deployment
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
  runAsUser: 0
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
resources:
  {{- toYaml .Values.sidecars.resources | nindent 2 }}
volumeMounts:
  - { name: socket, mountPath: /csi }
{{- end }}
