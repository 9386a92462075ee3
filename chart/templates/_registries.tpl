{{- /* The registries file, as larder-node reads it. */ -}}

{{- /* A text as TOML's basic string. JSON escapes all that TOML wants escaped but DEL; the rest of the list are characters that are
allowed in TOML and break the YAML around it. */ -}}
{{- define "larder.toml" -}}
{{- $text := toJson (toString .) -}}
{{- range $code := concat (untilStep 127 160 1) (list 65279 65534 65535) -}}
{{- $text = $text | replace (printf "%c" $code) (printf "\\u%04x" $code) -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- define "larder.tomlList" -}}
{{- $items := list -}}
{{- range . -}}{{- $items = append $items (include "larder.toml" .) -}}{{- end -}}
[{{ join ", " $items }}]
{{- end -}}

{{- define "larder.registries" -}}
# Made from the chart's values. An agent reads it again when it changes.
{{- with .Values.allow }}
allow = {{ include "larder.tomlList" . }}
{{- end }}
{{- with .Values.deny }}
deny = {{ include "larder.tomlList" . }}
{{- end }}
{{- range $name, $registry := .Values.registries }}

[registries.{{ include "larder.toml" $name }}]
{{- with $registry.endpoints }}
endpoints = {{ include "larder.tomlList" . }}
{{- end }}
{{- with $registry.ca }}
ca_pem = {{ include "larder.toml" . }}
{{- end }}
{{- if $registry.insecure }}
insecure = true
{{- end }}
{{- if $registry.skip }}
skip = true
{{- end }}
{{- with $registry.onOrigin404 }}
on-origin-404 = {{ include "larder.toml" . }}
{{- end }}
{{- with $registry.onOriginDenied }}
on-origin-denied = {{ include "larder.toml" . }}
{{- end }}
{{- end }}
{{- end -}}
