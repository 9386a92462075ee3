{{- /* Certificates that the proxy trusts for every registry: (dict "root" $ "node" <values of the pool> "pool" <name, or "">). */ -}}

{{- /* The ConfigMap and its key, with a slash between; nothing where there is none. */ -}}
{{- define "larder.upstreamCa" -}}
{{- $corporate := .node.corporateProxy -}}
{{- $named := default (dict) $corporate.caConfigMap -}}
{{- if and $corporate.ca $named.name -}}
{{- fail "corporateProxy: ca and caConfigMap.name are both set; keep one of them (in a pool, the other is \"\")" -}}
{{- else if $corporate.ca -}}
{{ include "larder.fullname" .root }}-upstream-ca{{ with .pool }}-{{ . }}{{ end }}/ca.crt
{{- else if $named.name -}}
{{ $named.name }}/{{ default "ca.crt" $named.key }}
{{- end -}}
{{- end -}}

{{- define "larder.upstreamCaConfigMap" -}}
{{- with .node.corporateProxy.ca }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "larder.upstreamCa" $ | dir }}
  namespace: {{ $.root.Release.Namespace }}
  {{- include "larder.metadata" (dict "root" $.root) | nindent 2 }}
data:
  {{- /* TOML's basic strings are YAML's as well. */}}
  ca.crt: {{ include "larder.toml" . }}
{{- end }}
{{- end -}}

{{- define "larder.upstreamCaVolume" -}}
{{- with include "larder.upstreamCa" . -}}
- name: upstream-ca
  configMap:
    name: {{ dir . | quote }}
    items:
      - key: {{ base . | quote }}
        path: ca.crt
{{- end }}
{{- end -}}
