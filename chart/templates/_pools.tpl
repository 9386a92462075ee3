{{- /* One DaemonSet for each node pool, such that every node gets one Pod at most: a pool takes the nodes that have its label and none of
an earlier pool's, and the DaemonSet without a pool takes the nodes that have no pool's label. */ -}}

{{- /* Writes "from" over "onto", deep in maps. Not mergeOverwrite, which lets false, 0 and "" of a pool be beaten by what they override.
null takes away, as it does in the values of the release. */ -}}
{{- define "larder.override" -}}
{{- $onto := .onto -}}
{{- range $key, $value := .from -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $onto $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $onto $key)) -}}
{{- include "larder.override" (dict "onto" (get $onto $key) "from" $value) -}}
{{- else -}}
{{- $_ := set $onto $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Which nodes: (dict "node" <values of the pool> "label" <its nodeLabel, or nothing> "earlier" [<nodeLabel>…]). */ -}}
{{- define "larder.nodeExpressions" -}}
- key: kubernetes.io/os
  operator: In
  values: [linux]
- key: kubernetes.io/arch
  operator: In
  values: {{ toJson .node.architectures }}
# Nodes that are no machines: there is no engine behind them.
- key: type
  operator: NotIn
  values: [virtual-kubelet]
- key: eks.amazonaws.com/compute-type
  operator: NotIn
  values: [fargate]
{{- with .label }}
- key: {{ .key | quote }}
  operator: In
  values: {{ toJson .values }}
{{- end }}
{{- range .earlier }}
# Also true for a node that does not have the label at all.
- key: {{ .key | quote }}
  operator: NotIn
  values: {{ toJson .values }}
{{- end }}
{{- end -}}
