{{- /* The cluster cache: what its objects are called, and what its Pod runs. The objects are in cache-*.yaml; what nodes are told of it is in
_cluster_cache.tpl. */ -}}

{{- /* Whether this release has one; nothing where it has not. */ -}}
{{- define "larder.cache" -}}
{{- if and .Values.cache.enabled (not .Values.cache.external.url) -}}yes{{- end -}}
{{- end -}}

{{- /* Whether it reads UpstreamRegistry objects: where nodes do, for a cache that was told other endpoints than a node is not asked by it. */ -}}
{{- define "larder.cacheReads" -}}
{{- if and (include "larder.cache" .) .Values.cache.kubernetes (include "larder.agentsSpeak" .) -}}yes{{- end -}}
{{- end -}}

{{- define "larder.cacheName" -}}
{{- include "larder.fullname" . -}}-cache
{{- end -}}

{{- define "larder.cacheSelectorLabels" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: cache
{{- end -}}

{{- define "larder.cacheAccount" -}}
{{- if .Values.cache.serviceAccount.create -}}
{{- default (include "larder.cacheName" .) .Values.cache.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.cache.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* The host of its URL, which its certificate is for. */ -}}
{{- define "larder.cacheHost" -}}
{{- include "larder.cacheName" . -}}.{{- .Release.Namespace -}}.svc
{{- end -}}

{{- /* What an entry of cache.tls.extraNames is. */ -}}
{{- define "larder.isAddress" -}}
{{- if or (contains ":" .) (regexMatch "^[0-9.]+$" .) -}}yes{{- end -}}
{{- end -}}

{{- /* All names of its certificate, and addresses. */ -}}
{{- define "larder.cacheNames" -}}
{{- $host := include "larder.cacheHost" . -}}
{{- $names := list $host (trimSuffix ".svc" $host) (include "larder.cacheName" .) (printf "%s.cluster.local" $host) -}}
{{- uniq (concat $names (default list .Values.cache.tls.extraNames)) | join "," -}}
{{- end -}}

{{- /* The Secret with a certificate that somebody else makes; nothing where the cache makes its own. */ -}}
{{- define "larder.cacheTlsSecret" -}}
{{- $tls := .Values.cache.tls -}}
{{- if $tls.secretName -}}{{- $tls.secretName -}}
{{- else if $tls.certManager.issuerRef.name -}}{{- include "larder.cacheName" . -}}-tls
{{- end -}}
{{- end -}}

{{- /* What it is told about its store. */ -}}
{{- define "larder.cacheStore" -}}
{{- $store := .Values.cache.store -}}
{{- if eq $store.type "bucket" -}}
- {{ printf "--store=bucket:%s" $store.bucket.url | quote }}
- {{ printf "--store-cluster=%s" $store.bucket.clusterId | quote }}
{{- with $store.bucket.endpoint }}
- {{ printf "--endpoint=%s" . | quote }}
{{- end }}
{{- if $store.bucket.ca }}
- --endpoint-ca=/etc/larder/bucket-ca/ca.crt
{{- end }}
{{- if ne $store.bucket.redirect "none" }}
- --redirect={{ $store.bucket.redirect }}
{{- end }}
- --store-folder=/var/lib/larder/copies
{{- else -}}
- --store=directory:/var/lib/larder/cache
{{- end }}
- --store-size={{ $store.size }}
{{- /* A volume of its own or a folder of the node: the program sees which. An emptyDir is the node's, of any size. */}}
- --store-reserve={{ $store.reserve | default (ternary "auto" "18%" (eq $store.type "persistentVolumeClaim")) }}
{{- end -}}

{{- /* Where it lies: (dict "root" $). */ -}}
{{- define "larder.cacheVolume" -}}
{{- $store := .Values.cache.store -}}
- name: store
{{- if eq $store.type "persistentVolumeClaim" }}
  persistentVolumeClaim:
    claimName: {{ default (include "larder.cacheName" .) $store.existingClaim | quote }}
{{- else }}
  # A quarter more than the store may have, for what is being written.
  emptyDir:
    sizeLimit: {{ div (mul (int64 (include "larder.bytes" $store.size)) 5) 4 | toString | quote }}
{{- end }}
{{- end -}}

{{- define "larder.cacheContainer" -}}
{{- $values := .Values -}}
{{- $cache := .Values.cache -}}
{{- $corporate := dict "root" . "node" .Values "pool" "" -}}
{{- $name := include "larder.cacheName" . -}}
- name: cache
  image: {{ include "larder.image" . | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command:
    - /usr/local/bin/larder-cache
    - run
    - {{ printf "--listen=%s:7443" $cache.address | quote }}
    - {{ printf "--admin=%s:7444" $cache.address | quote }}
    {{- include "larder.cacheStore" . | nindent 4 }}
    {{- if include "larder.cacheTlsSecret" . }}
    - --tls-certificate=/etc/larder/tls/tls.crt
    - --tls-key=/etc/larder/tls/tls.key
    {{- else }}
    - {{ printf "--own-certificate=%s/%s-certificate" .Release.Namespace $name | quote }}
    - {{ printf "--own-certificate-names=%s" (include "larder.cacheNames" .) | quote }}
    - {{ printf "--authority-configmap=%s/%s-authority" .Release.Namespace $name | quote }}
    {{- end }}
    - {{ printf "--token-audience=%s" $cache.token.audience | quote }}
    - {{ printf "--accounts=%s/%s" .Release.Namespace (include "larder.serviceAccount" .) | quote }}
    # With the images, so that a restart needs no API server as long as they are there.
    - --saved-keys=/var/lib/larder/saved-keys
    {{- if include "larder.cacheControl" . }}
    - {{ printf "--control=%s:7445" $cache.address | quote }}
    {{- if $cache.control.tokenSecret.name }}
    - --control-token-file=/etc/larder/control/tokens
    {{- end }}
    {{- with include "larder.cacheControlAccounts" . }}
    - {{ printf "--control-audience=%s" $cache.control.audience | quote }}
    - {{ printf "--control-accounts=%s" . | quote }}
    {{- end }}
    {{- with include "larder.cacheControlHolders" . }}
    - {{ printf "--control-holders=%s" . | quote }}
    {{- end }}
    {{- end }}
    - --registries=/etc/larder/registries/registries.toml
    {{- if include "larder.cacheReads" . }}
    - --kubernetes=true
    {{- end }}
    {{- if include "larder.upstreamCa" $corporate }}
    - --upstream-ca=/etc/larder/upstream-ca/ca.crt
    {{- end }}
    - --log-format={{ $values.logFormat }}
    {{- range $cache.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  {{- with include "larder.environment" (dict "node" .Values "own" (include "larder.corporateProxy" .Values) "more" $cache.extraEnv) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if eq $cache.store.type "bucket" }}
  {{- with $cache.store.bucket.credentialsSecret }}
  envFrom:
    - secretRef:
        name: {{ . | quote }}
  {{- end }}
  {{- end }}
  ports:
    - name: registry
      containerPort: 7443
    - name: cache-metrics
      containerPort: 7444
    {{- if include "larder.cacheControl" . }}
    - name: control
      containerPort: 7445
    {{- end }}
  securityContext:
    runAsNonRoot: true
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  # Until the store was opened nothing is answered. How much is in it is no matter, for it is listed beside the serving; a disk that answers slowly is, and so are an API
  # server and a bucket that do not, for seconds. Five minutes, and then the Pod's events say so; from the first answer on it is ready when it is, and alive.
  startupProbe:
    httpGet:
      port: cache-metrics
      path: /livez
    periodSeconds: 5
    failureThreshold: 60
  readinessProbe:
    httpGet:
      port: cache-metrics
      path: /readyz
    {{- toYaml $cache.readinessProbe | nindent 4 }}
  livenessProbe:
    httpGet:
      port: cache-metrics
      path: /livez
    {{- toYaml $cache.livenessProbe | nindent 4 }}
  {{- with $cache.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: store
      mountPath: /var/lib/larder
    # The whole folder: a single mounted file (subPath) would never change.
    - name: registries
      mountPath: /etc/larder/registries
      readOnly: true
    {{- if include "larder.cacheTlsSecret" . }}
    - name: tls
      mountPath: /etc/larder/tls
      readOnly: true
    {{- end }}
    {{- if include "larder.cacheControlTokens" . }}
    - name: control
      mountPath: /etc/larder/control
      readOnly: true
    {{- end }}
    {{- if include "larder.upstreamCa" $corporate }}
    - name: upstream-ca
      mountPath: /etc/larder/upstream-ca
      readOnly: true
    {{- end }}
    {{- if include "larder.cacheBucketCa" . }}
    - name: bucket-ca
      mountPath: /etc/larder/bucket-ca
      readOnly: true
    {{- end }}
{{- end -}}

{{- /* Whether it is told what to keep: by the controller, or by whom the values name. */ -}}
{{- define "larder.cacheControl" -}}
{{- if or .Values.cache.control.enabled (include "larder.controller" .) -}}yes{{- end -}}
{{- end -}}

{{- define "larder.cacheControlAccounts" -}}
{{- $accounts := default list .Values.cache.control.accounts -}}
{{- if include "larder.controller" . -}}
{{- $accounts = append $accounts (printf "%s/%s" .Release.Namespace (include "larder.controllerAccount" .)) -}}
{{- end -}}
{{- uniq $accounts | join "," -}}
{{- end -}}

{{- /* The controller's pins are the controller's alone. */ -}}
{{- define "larder.cacheControlHolders" -}}
{{- $holders := default list .Values.cache.control.holders -}}
{{- if include "larder.controller" . -}}
{{- $holders = append $holders (printf "%s/%s=%s" .Release.Namespace (include "larder.controllerAccount" .) .Values.controller.holder) -}}
{{- end -}}
{{- uniq $holders | join "," -}}
{{- end -}}

{{- /* The Secret with tokens for the control API; nothing where there is none. */ -}}
{{- define "larder.cacheControlTokens" -}}
{{- if .Values.cache.control.enabled -}}{{- .Values.cache.control.tokenSecret.name -}}{{- end -}}
{{- end -}}

{{- /* Certificates for the bucket, where it is one. */ -}}
{{- define "larder.cacheBucketCa" -}}
{{- if and (include "larder.cache" .) (eq .Values.cache.store.type "bucket") -}}
{{- default "" .Values.cache.store.bucket.ca -}}
{{- end -}}
{{- end -}}

{{- define "larder.cacheAffinity" -}}
{{- $expressions := list (dict "key" "kubernetes.io/os" "operator" "In" "values" (list "linux")) (dict "key" "kubernetes.io/arch" "operator" "In" "values" .Values.architectures) -}}
{{- $terms := dict "nodeSelectorTerms" (list (dict "matchExpressions" $expressions)) -}}
{{- $own := dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" $terms) -}}
{{- merge (dict) (deepCopy (default (dict) .Values.cache.affinity)) $own | toYaml -}}
{{- end -}}
