{{- /* What a schema cannot say. Included first, so that nothing is rendered from values that contradict each other. */ -}}
{{- define "larder.checks" -}}
{{- include "larder.cacheChecks" . -}}
{{- include "larder.controllerChecks" . -}}
{{- $ports := list -}}
{{- range $name, $port := .Values.ports -}}
{{- if has (int $port) $ports -}}
{{- fail (printf "ports.%s: %d is taken by another port of these; all of them are ports of the node" $name (int $port)) -}}
{{- end -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- $stores := list .Values.store.path -}}
{{- range .Values.pools -}}{{- with dig "store" "path" "" . -}}{{- $stores = append $stores . -}}{{- end -}}{{- end -}}
{{- range $path := $stores -}}
{{- $folder := printf "%s/" (trimSuffix "/" $path) -}}
{{- /* What an agent keeps to take its changes back from is read by root: the proxy's user must not own what it is in. */ -}}
{{- if or (hasPrefix $folder "/var/lib/larder/node/") (hasPrefix "/var/lib/larder/node" $folder) -}}
{{- fail (printf "store.path: %s is where the agent keeps what it changed, or holds that; give the store a folder of its own, such as /var/lib/larder/store" $path) -}}
{{- end -}}
{{- end -}}
{{- $hub := list -}}
{{- range $name := list "docker.io" "index.docker.io" "registry-1.docker.io" -}}
{{- if hasKey (default (dict) $.Values.registries) $name -}}{{- $hub = append $hub $name -}}{{- end -}}
{{- end -}}
{{- if gt (len $hub) 1 -}}
{{- fail (printf "registries: %s are one registry, docker.io; say it all there" (join " and " $hub)) -}}
{{- end -}}
{{- $pools := list -}}
{{- range .Values.pools -}}
{{- if has .name $pools -}}
{{- fail (printf "pools: there are two called %s" .name) -}}
{{- end -}}
{{- $pools = append $pools .name -}}
{{- end -}}
{{- $classes := list (default "" .Values.priorityClassName) -}}
{{- range .Values.pools -}}{{- $classes = append $classes (default "" .priorityClassName) -}}{{- end -}}
{{- if and .Values.resourceQuota.enabled (not (without $classes "")) -}}
{{- fail "resourceQuota.enabled: without priorityClassName there is no class to let in" -}}
{{- end -}}
{{- if and .Values.openshift.enabled (not .Values.serviceAccount.create) (has (default "default" .Values.serviceAccount.name) (list "default" "builder" "deployer")) -}}
{{- fail "openshift.enabled: without an account of its own every Pod of the namespace that names none would get the agent's rights; let serviceAccount.create one, or name one in serviceAccount.name" -}}
{{- end -}}
{{- $metrics := .Values.metrics -}}
{{- if and $metrics.podMonitor.enabled $metrics.serviceMonitor.enabled -}}
{{- fail "metrics: podMonitor and serviceMonitor together would scrape everything twice; enable one" -}}
{{- end -}}
{{- if and (not $metrics.enabled) (or $metrics.podMonitor.enabled $metrics.serviceMonitor.enabled $metrics.service.enabled) -}}
{{- fail "metrics.enabled is false: there is nothing to scrape for the Service or the monitor" -}}
{{- end -}}
{{- if and $metrics.agent.enabled (not $metrics.enabled) -}}
{{- fail "metrics.agent.enabled needs metrics.enabled" -}}
{{- end -}}
{{- end -}}
