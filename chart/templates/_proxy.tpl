{{- /* The proxy's containers: (dict "root" $ "node" <values of the pool> "pool" <name, or "">). */ -}}

{{- define "larder.prepareStore" -}}
# Gives the folder on the node to the proxy's user, who could not do it himself.
- name: store
  image: {{ include "larder.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command:
    - /usr/local/bin/larder-node
    - prepare-store
    - --store=directory:/var/lib/larder/store
    - --user={{ include "larder.proxyUser" . }}
  securityContext:
    runAsUser: 0
    runAsGroup: 0
    runAsNonRoot: false
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
      # CHOWN: gives what is there away. FOWNER, DAC_OVERRIDE: goes through folders that belong to the proxy already.
      add: [CHOWN, FOWNER, DAC_OVERRIDE]
    seccompProfile:
      type: RuntimeDefault
    {{- with .node.proxy.seLinuxOptions }}
    seLinuxOptions:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  resources:
    requests:
      cpu: 10m
      memory: 16Mi
    limits:
      memory: 128Mi
  volumeMounts:
    {{- include "larder.storeMount" .node | nindent 4 }}
{{- end -}}

{{- define "larder.proxy" -}}
{{- $values := .root.Values -}}
{{- $ports := $values.ports -}}
# A native sidecar: up before the agent, and down after it has withdrawn. It has no startupProbe, and must not have one: the proxy listens
# once the agent has made its folder, and the agent would only be started once such a probe had succeeded.
- name: proxy
  image: {{ include "larder.image" .root | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  restartPolicy: Always
  command:
    - /usr/local/bin/larder-node
    - proxy
    - --run-folder=/run/larder/proxy
    - --user={{ include "larder.proxyUser" . }}
    - --admin=127.0.0.1:{{ int $ports.proxyAdmin }}
    {{- if ne (int $ports.mirror) 7439 }}
    - --listen=127.0.0.1:{{ int $ports.mirror }}
    {{- end }}
    {{- if $values.metrics.enabled }}
    - {{ printf "--metrics=%s:%d" $values.metrics.address (int $ports.proxyMetrics) | quote }}
    {{- end }}
    - --store=directory:/var/lib/larder/store
    - --store-size={{ .node.store.size }}
    - --store-reserve={{ .node.store.reserve }}
    {{- if include "larder.upstreamCa" . }}
    - --upstream-ca=/etc/larder/upstream-ca/ca.crt
    {{- end }}
    {{- if include "larder.asksACache" .root }}
    {{- include "larder.clusterCacheFlags" .root | nindent 4 }}
    {{- end }}
    - --log-format={{ .node.logFormat }}
    {{- range .node.proxy.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  {{- with include "larder.environment" (dict "node" .node "own" (include "larder.corporateProxy" .node) "more" .node.proxy.extraEnv) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if $values.metrics.enabled }}
  ports:
    - name: proxy-metrics
      containerPort: {{ int $ports.proxyMetrics }}
  {{- end }}
  # It faces the network. Of the node's files it has its store alone; it is in the node's network and sees the node's processes, which is why
  # it is a user whom nobody else runs as (SECURITY.md, "What a hole in the proxy's container gives").
  securityContext:
    runAsUser: {{ include "larder.proxyUser" . }}
    runAsGroup: {{ include "larder.proxyUser" . }}
    runAsNonRoot: true
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
    {{- with .node.proxy.seLinuxOptions }}
    seLinuxOptions:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  # The second line: the agent ends a hung proxy within seconds. A grace of one second, because a hung process uses none.
  livenessProbe:
    httpGet:
      host: 127.0.0.1
      port: {{ int $ports.proxyAdmin }}
      path: /livez
    terminationGracePeriodSeconds: 1
    {{- toYaml .node.proxy.livenessProbe | nindent 4 }}
  {{- with .node.proxy.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: run
      mountPath: /run/larder
      readOnly: true
    {{- if include "larder.upstreamCa" . }}
    - name: upstream-ca
      mountPath: /etc/larder/upstream-ca
      readOnly: true
    {{- end }}
    {{- if include "larder.hasClusterCacheVolume" .root }}
    - name: cluster-cache
      mountPath: /etc/larder/cluster-cache
      readOnly: true
    {{- end }}
    {{- include "larder.storeMount" .node | nindent 4 }}
{{- end -}}

{{- define "larder.corporateProxy" -}}
{{- with .corporateProxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .corporateProxy.http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .corporateProxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* A container's environment: (dict "node" … "own" <YAML list> "more" <list of the operator's>). What the operator names
is not said by us as well: Kubernetes would take the last of the two, and warn. */ -}}
{{- define "larder.environment" -}}
{{- $own := fromYamlArray .own -}}
{{- with .node.logFilter -}}{{- $own = prepend $own (dict "name" "LARDER_LOG" "value" .) -}}{{- end -}}
{{- $named := list -}}
{{- range .more -}}{{- $named = append $named .name -}}{{- end -}}
{{- $all := list -}}
{{- range $own -}}{{- if not (has .name $named) -}}{{- $all = append $all . -}}{{- end -}}{{- end -}}
{{- $all = concat $all .more -}}
{{- with $all -}}
env:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
