{{- /* The controller: what its objects are called, and what its Pods run. The objects are in controller-*.yaml. */ -}}

{{- /* Whether this release has one; nothing where it has not. */ -}}
{{- define "larder.controller" -}}
{{- if and .Values.controller.enabled (not (include "larder.noController" .)) -}}yes{{- end -}}
{{- end -}}

{{- /* Why there can be none, in words that NOTES.txt says. Not refused: it is on by default, and whoever upgrades a release without a cluster cache has typed nothing wrong. */ -}}
{{- define "larder.noController" -}}
{{- if not (include "larder.cache" .) -}}
it has the cluster cache of this release keep images, and there is none (cache.enabled, cache.external.url)
{{- else if not (include "larder.hasPolicies" .) -}}
its custom resources want Kubernetes 1.30 or later, and this is {{ .Capabilities.KubeVersion.Version }}
{{- end -}}
{{- end -}}

{{- define "larder.controllerName" -}}
{{- include "larder.fullname" . -}}-controller
{{- end -}}

{{- define "larder.controllerSelectorLabels" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "larder.controllerAccount" -}}
{{- if .Values.controller.serviceAccount.create -}}
{{- default (include "larder.controllerName" .) .Values.controller.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.controller.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "larder.controllerContainer" -}}
{{- $controller := .Values.controller -}}
- name: controller
  image: {{ include "larder.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - /usr/local/bin/larder-controller
    - run
    - --mode={{ $controller.mode }}
    - {{ printf "--cache=https://%s:7445" (include "larder.cacheHost" .) | quote }}
    # The one Service shows one of them; each has seen something else of registries.
    - {{ printf "--cache-replicas=%s-pods.%s.svc" (include "larder.cacheName" .) .Release.Namespace | quote }}
    {{- if include "larder.clusterCacheAuthority" . }}
    - --cache-ca=/etc/larder/cache/ca.crt
    {{- else }}
    # It trusts what it is given and nothing else; this is what the image trusts.
    - --cache-ca=/etc/ssl/certs/ca-certificates.crt
    {{- end }}
    - --cache-token-file=/etc/larder/cache/token
    - {{ printf "--holder=%s" $controller.holder | quote }}
    - --concurrency={{ int $controller.concurrency }}
    {{- with $controller.namespaces }}
    - {{ printf "--namespaces=%s" . | quote }}
    {{- end }}
    {{- range $controller.include }}
    - {{ printf "--include=%s" . | quote }}
    {{- end }}
    {{- range $controller.exclude }}
    - {{ printf "--exclude=%s" . | quote }}
    {{- end }}
    {{- range $controller.pullPolicies }}
    - --pull-policies={{ . }}
    {{- end }}
    - --images-per-namespace={{ int64 $controller.perNamespace.images }}
    {{- with $controller.perNamespace.bytes }}
    - --bytes-per-namespace={{ . }}
    {{- end }}
    {{- range $namespace, $bound := $controller.perNamespace.namespaces }}
    {{- $parts := list }}
    {{- if hasKey $bound "images" }}{{ $parts = append $parts (printf "images:%d" (int64 $bound.images)) }}{{ end }}
    {{- if hasKey $bound "bytes" }}{{ $parts = append $parts (printf "bytes:%v" $bound.bytes) }}{{ end }}
    - {{ printf "--namespace-bound=%s=%s" $namespace (join "," $parts) | quote }}
    {{- end }}
    - --expiry={{ $controller.expiry }}
    - --monitoring-interval={{ $controller.monitoring.interval }}
    {{- if $controller.monitoring.follow }}
    - --follow
    {{- end }}
    - {{ printf "--lease=%s/%s" .Release.Namespace (include "larder.controllerName" .) | quote }}
    - {{ printf "--admin=%s:7446" $controller.address | quote }}
    - --log-format={{ .Values.logFormat }}
    {{- range $controller.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  {{- with include "larder.environment" (dict "node" .Values "own" "" "more" $controller.extraEnv) }}
  {{- . | nindent 2 }}
  {{- end }}
  ports:
    - name: admin
      containerPort: 7446
  securityContext:
    runAsNonRoot: true
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  readinessProbe:
    httpGet:
      port: admin
      path: /readyz
    periodSeconds: 5
  livenessProbe:
    httpGet:
      port: admin
      path: /livez
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  {{- with $controller.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    # The whole folder: a single mounted file (subPath) would never change.
    - name: cache
      mountPath: /etc/larder/cache
      readOnly: true
{{- end -}}

{{- /* What the cache knows it by, and what it knows the cache by. */ -}}
{{- define "larder.controllerVolume" -}}
{{- $authority := include "larder.clusterCacheAuthority" . -}}
# An authority that is not there yet keeps no Pod from starting.
- name: cache
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.cache.control.audience | quote }}
          expirationSeconds: {{ int .Values.cache.token.expirationSeconds }}
      {{- if $authority }}
      - configMap:
          name: {{ dir $authority | quote }}
          optional: true
          items:
            - key: {{ base $authority | quote }}
              path: ca.crt
      {{- end }}
{{- end -}}

{{- define "larder.controllerAffinity" -}}
{{- $expressions := list (dict "key" "kubernetes.io/os" "operator" "In" "values" (list "linux")) (dict "key" "kubernetes.io/arch" "operator" "In" "values" .Values.architectures) -}}
{{- $terms := dict "nodeSelectorTerms" (list (dict "matchExpressions" $expressions)) -}}
{{- $own := dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" $terms) -}}
{{- merge (dict) (deepCopy (default (dict) .Values.controller.affinity)) $own | toYaml -}}
{{- end -}}

{{- /* What a schema cannot say. */ -}}
{{- define "larder.controllerChecks" -}}
{{- if include "larder.controller" . -}}
{{- $account := include "larder.controllerAccount" . -}}
{{- if has $account (list (include "larder.serviceAccount" .) (include "larder.cacheAccount" .)) -}}
{{- fail (printf "controller.serviceAccount: %s is the nodes' or the cache's account as well, and no node is to say what is kept; name another one, or let one be created" $account) -}}
{{- end -}}
{{- with .Values.controller.serviceAccount -}}
{{- if and (not .create) (has (default "default" .name) (list "default" "builder" "deployer")) -}}
{{- fail "controller.serviceAccount: every Pod of the namespace that names no account would get the controller's rights; let one be created (create: true), or name one that nothing else has (name)" -}}
{{- end -}}
{{- if and (not .create) .annotations -}}
{{- fail "controller.serviceAccount.annotations: they are for an account that is created here; annotate the one of serviceAccount.name yourself, or say create: true" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
