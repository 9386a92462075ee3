{{- /* What objects are called, labelled and made from. */ -}}

{{- define "larder.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What selects the Pods of all pools. It can never change: a DaemonSet's selector is immutable. */ -}}
{{- define "larder.selectorLabels" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "larder.ownLabels" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- /* Labels and annotations of an object: (dict "root" $ "labels" {…} "annotations" {…}). Ours win, for they are what we select by. */ -}}
{{- define "larder.metadata" -}}
{{- $own := fromYaml (include "larder.ownLabels" .root) -}}
labels:
  {{- merge (dict) $own (default (dict) .labels) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "larder.image" -}}
{{- $image := .Values.image -}}
{{- $name := printf "%s/%s" $image.registry $image.repository -}}
{{- if not $image.registry -}}{{- $name = $image.repository -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* The proxy's user and group on the node. No name has the number, and nothing else is likely to run under it: users of containers are
users of the node, so whoever shared it could read and end what the other runs (docs/decisions/0011-the-proxys-user-in-a-pod.md). */ -}}
{{- define "larder.proxyUser" -}}60739{{- end -}}

{{- define "larder.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (printf "%s-node" (include "larder.fullname" .)) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}
