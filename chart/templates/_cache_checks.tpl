{{- /* What a schema cannot say about the cluster cache. */ -}}
{{- define "larder.cacheChecks" -}}
{{- $cache := .Values.cache -}}
{{- if include "larder.cache" . -}}
{{- if not (regexMatch "^[a-z]" (include "larder.fullname" .)) -}}
{{- fail (printf "the cluster cache has a Service, whose name has to begin with a letter, and %s does not: set fullnameOverride" (include "larder.fullname" .)) -}}
{{- end -}}
{{- $tls := $cache.tls -}}
{{- if and $tls.secretName $tls.certManager.issuerRef.name -}}
{{- fail "cache.tls: secretName and certManager.issuerRef.name are both set; keep one of them" -}}
{{- end -}}
{{- $authorities := list -}}
{{- if $tls.ca -}}{{- $authorities = append $authorities "ca" -}}{{- end -}}
{{- if $tls.caConfigMap.name -}}{{- $authorities = append $authorities "caConfigMap.name" -}}{{- end -}}
{{- if $tls.publicAuthority -}}{{- $authorities = append $authorities "publicAuthority" -}}{{- end -}}
{{- if gt (len $authorities) 1 -}}
{{- fail (printf "cache.tls: %s are all set; keep one of them" (join " and " $authorities)) -}}
{{- end -}}
{{- if and (include "larder.cacheTlsSecret" .) (not $authorities) -}}
{{- fail "cache.tls: nodes have to check a certificate that somebody else makes against something: its authority as ca (PEM text) or caConfigMap.name, or publicAuthority: true where the image trusts it anyway" -}}
{{- end -}}
{{- if and $authorities (not (include "larder.cacheTlsSecret" .)) -}}
{{- fail (printf "cache.tls.%s goes with secretName or certManager; the authority of the cache's own certificate reaches the nodes by itself" (first $authorities)) -}}
{{- end -}}
{{- $node := include "larder.serviceAccount" . -}}
{{- if eq $node (include "larder.cacheAccount" .) -}}
{{- fail (printf "cache.serviceAccount: %s is the nodes' account as well, and the cache's has rights that nodes must not have; name another one, or let one be created" $node) -}}
{{- end -}}
{{- end -}}
{{- with $cache.external -}}
{{- if and .ca .caConfigMap.name -}}
{{- fail "cache.external: ca and caConfigMap.name are both set; keep one of them" -}}
{{- end -}}
{{- if and .tokenSecret.name (hasPrefix "http://" .url) -}}
{{- fail (printf "cache.external.url: %s is plain http, and the token of tokenSecret would cross the network in the clear" .url) -}}
{{- end -}}
{{- if and (not .url) (or .addresses .ca .caConfigMap.name .tokenSecret.name) -}}
{{- fail "cache.external: without url there is no other cache that the rest is about" -}}
{{- end -}}
{{- end -}}
{{- end -}}
