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

{{/* Whether a pool is of LVM: something, or nothing. */}}
{{- define "orlop.lvm" -}}
{{- range .Values.pools }}{{ if .lvm }}yes{{ end }}{{ end }}
{{- end }}

{{/* A stock sidecar beside the router, whose socket is its user's alone. Called with the root, its name and its arguments. */}}
{{- define "orlop.sidecar" -}}
{{- $sidecars := .root.Values.sidecars -}}
- name: {{ .name }}
  image: {{ get $sidecars .name }}
  imagePullPolicy: {{ $sidecars.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --leader-election
    - --leader-election-namespace={{ .root.Release.Namespace }}
    - --http-endpoint=0.0.0.0:{{ .port }}
    # The defaults of 5 and 10 calls a second make a hundred claims at once wait for half a minute.
    - --kube-api-qps=200
    - --kube-api-burst=400
    - --retry-interval-start=250ms
    - --retry-interval-max=30s
    {{- range .args }}
    - {{ . }}
    {{- end }}
  env:
    - { name: NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
    - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
  ports:
    - { name: {{ .name }}, containerPort: {{ .port }} }
  # One that can neither renew its lease nor give it up is started again.
  livenessProbe:
    httpGet: { path: /healthz/leader-election, port: {{ .name }} }
    timeoutSeconds: 5
  securityContext:
    {{- include "orlop.unprivileged" . | nindent 4 }}
  resources:
    {{- toYaml $sidecars.resources | nindent 4 }}
  volumeMounts:
    - { name: socket, mountPath: /csi }
{{- end }}

{{- define "orlop.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- /* The Secret with what signs certificates. */}}
{{- define "orlop.authority" -}}
orlop-ca{{ if .Values.certificates.issuer }}-issued{{ end }}
{{- end }}
