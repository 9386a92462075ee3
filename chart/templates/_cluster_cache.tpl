{{- /* What a node's proxy is told of the cluster cache, this release's or another one: flags, volume, mount. */ -}}

{{- define "larder.asksACache" -}}
{{- if or .Values.cache.external.url (include "larder.cache" .) -}}yes{{- end -}}
{{- end -}}

{{- /* Kubelet tells a Pod the addresses of its namespace's Services by variables, so nobody's DNS is asked: nodes have a resolver of their own, which does not know
the cluster's names, and what resolves those may wait for an image itself. */ -}}
{{- define "larder.addressVariable" -}}
{{- printf "$(%s_SERVICE_HOST):7443" (upper . | replace "-" "_") -}}
{{- end -}}

{{- define "larder.clusterCacheFlags" -}}
{{- if .Values.cache.external.url -}}
- {{ printf "--cache=%s" .Values.cache.external.url | quote }}
{{- range .Values.cache.external.addresses }}
- {{ printf "--cache-address=%s" . | quote }}
{{- end }}
{{- else -}}
- {{ printf "--cache=https://%s:7443" (include "larder.cacheHost" .) | quote }}
{{- range (include "larder.cacheServices" . | fromYamlArray) }}
- {{ printf "--cache-address=%s" (include "larder.addressVariable" .) | quote }}
{{- end }}
{{- end }}
{{- if include "larder.clusterCacheAuthority" . }}
- --cache-ca=/etc/larder/cluster-cache/ca.crt
{{- end }}
{{- if include "larder.clusterCacheToken" . }}
- --cache-token-file=/etc/larder/cluster-cache/token
{{- end }}
{{- end -}}

{{- /* The Services that nodes ask: one for each replica, so that all nodes ask the same one first for the same content, at an address that outlives its Pod. */ -}}
{{- define "larder.cacheServices" -}}
{{- $name := include "larder.cacheName" . -}}
{{- if eq (int .Values.cache.replicas) 1 -}}
- {{ $name }}
{{- else -}}
{{- range untilStep 0 (int .Values.cache.replicas) 1 }}
- {{ $name }}-{{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* NAME/KEY of the ConfigMap with the authority; nothing where it is one that the image trusts. */ -}}
{{- define "larder.clusterCacheAuthority" -}}
{{- $external := .Values.cache.external -}}
{{- $tls := .Values.cache.tls -}}
{{- $given := ternary $external $tls (ne $external.url "") -}}
{{- if and (not $external.url) (not (include "larder.cacheTlsSecret" .)) -}}
{{- include "larder.cacheName" . -}}-authority/ca.crt
{{- else if $given.ca -}}
{{- include "larder.fullname" . -}}-cluster-cache-ca/ca.crt
{{- else if $given.caConfigMap.name -}}
{{- $given.caConfigMap.name -}}/{{- $given.caConfigMap.key -}}
{{- end -}}
{{- end -}}

{{- /* How a node is known: by a token of its account, or the one of a Secret. */ -}}
{{- define "larder.clusterCacheToken" -}}
{{- if not .Values.cache.external.url -}}account{{- else if .Values.cache.external.tokenSecret.name -}}secret{{- end -}}
{{- end -}}

{{- define "larder.hasClusterCacheVolume" -}}
{{- if include "larder.asksACache" . -}}
{{- if or (include "larder.clusterCacheAuthority" .) (include "larder.clusterCacheToken" .) -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{- define "larder.clusterCacheVolume" -}}
{{- $authority := include "larder.clusterCacheAuthority" . -}}
{{- $token := include "larder.clusterCacheToken" . -}}
{{- if include "larder.hasClusterCacheVolume" . -}}
# What is not there yet keeps no Pod from starting: the cache is not asked until it is.
- name: cluster-cache
  projected:
    sources:
      {{- if eq $token "account" }}
      - serviceAccountToken:
          path: token
          audience: {{ .Values.cache.token.audience | quote }}
          expirationSeconds: {{ int .Values.cache.token.expirationSeconds }}
      {{- else if eq $token "secret" }}
      - secret:
          name: {{ .Values.cache.external.tokenSecret.name | quote }}
          optional: true
          items:
            - key: {{ .Values.cache.external.tokenSecret.key | quote }}
              path: token
      {{- end }}
      {{- if $authority }}
      - configMap:
          name: {{ dir $authority | quote }}
          optional: true
          items:
            - key: {{ base $authority | quote }}
              path: ca.crt
      {{- end }}
{{- end -}}
{{- end -}}
