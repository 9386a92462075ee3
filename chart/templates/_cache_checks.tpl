{{- /* What a schema cannot say about the cluster cache. */ -}}
{{- define "larder.cacheChecks" -}}
{{- $cache := .Values.cache -}}
{{- if include "larder.cache" . -}}
{{- if not (regexMatch "^[a-z]" (include "larder.fullname" .)) -}}
{{- fail (printf "the cluster cache has a Service, whose name has to begin with a letter, and %s does not: set fullnameOverride" (include "larder.fullname" .)) -}}
{{- end -}}
{{- $tls := $cache.tls -}}
{{- include "larder.cacheStoreChecks" . -}}
{{- include "larder.cacheControlChecks" . -}}
{{- if and $tls.secretName $tls.extraNames -}}
{{- fail "cache.tls.extraNames: the certificate of secretName is somebody else's, and has the names that it has; leave them out, or secretName" -}}
{{- end -}}
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
{{- with $cache.serviceAccount -}}
{{- if and (not .create) (has (default "default" .name) (list "default" "builder" "deployer")) -}}
{{- fail "cache.serviceAccount: every Pod of the namespace that names no account would get the cache's rights (to have tokens checked, and its certificate's key); let one be created (create: true), or name one that nothing else has (name)" -}}
{{- end -}}
{{- if and (not .create) .annotations -}}
{{- fail "cache.serviceAccount.annotations: they are for an account that is created here; annotate the one of serviceAccount.name yourself, or say create: true" -}}
{{- end -}}
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

{{- /* What is said about one kind of store and meant for another would be passed over without a word. */ -}}
{{- define "larder.cacheStoreChecks" -}}
{{- $store := .Values.cache.store -}}
{{- if ne $store.type "bucket" -}}
{{- range $name := list "url" "endpoint" "ca" "clusterId" "credentialsSecret" -}}
{{- if get $store.bucket $name -}}
{{- fail (printf "cache.store.bucket.%s is set, and cache.store.type is %s: say type: bucket, or leave it out" $name $store.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $google := and (hasPrefix "gs://" $store.bucket.url) (ne $store.bucket.redirect "none") -}}
{{- if and $google $store.bucket.endpoint (not (regexMatch "^https?://storage\\.googleapis\\.com([:/]|$)" $store.bucket.endpoint)) -}}
{{- fail (printf "cache.store.bucket.redirect: URLs of a gs:// bucket are signed for storage.googleapis.com, which no other endpoint takes (%s); say none" $store.bucket.endpoint) -}}
{{- end -}}
{{- if ne $store.type "persistentVolumeClaim" -}}
{{- range $name := list "storageClass" "existingClaim" -}}
{{- if get $store $name -}}
{{- fail (printf "cache.store.%s is set, and cache.store.type is %s: say type: persistentVolumeClaim, or leave it out" $name $store.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $store.existingClaim $store.storageClass -}}
{{- fail "cache.store: existingClaim has a class already; leave storageClass out" -}}
{{- end -}}
{{- end -}}

{{- define "larder.cacheControlChecks" -}}
{{- $control := .Values.cache.control -}}
{{- if and $control.enabled (not $control.accounts) (not $control.tokenSecret.name) -}}
{{- fail "cache.control.enabled: nobody may use it; name accounts (namespace/name), or tokenSecret.name (lines NAME TOKEN)" -}}
{{- end -}}
{{- if and (not $control.enabled) (or $control.accounts $control.tokenSecret.name $control.holders) -}}
{{- fail "cache.control: somebody may use it, and it is off; say enabled: true, or leave accounts, tokenSecret and holders out" -}}
{{- end -}}
{{- if and $control.enabled (not $control.tokenSecret.name) -}}
{{- $accounts := splitList "," (include "larder.cacheControlAccounts" .) -}}
{{- range default list $control.holders -}}
{{- $caller := first (splitList "=" .) -}}
{{- if not (has $caller $accounts) -}}
{{- fail (printf "cache.control.holders: nobody is %s: it has to be one of accounts, as there is no tokenSecret" $caller) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq $control.audience .Values.cache.token.audience -}}
{{- fail (printf "cache.control.audience: %s is that of nodes (cache.token.audience), none of which is to say what is kept; choose another one" $control.audience) -}}
{{- end -}}
{{- $node := printf "%s/%s" .Release.Namespace (include "larder.serviceAccount" .) -}}
{{- if has $node (default list $control.accounts) -}}
{{- fail (printf "cache.control.accounts: %s is the nodes' account, and no node is to say what is kept; give whoever does one of its own" $node) -}}
{{- end -}}
{{- end -}}
