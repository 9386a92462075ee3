{{- /* The agent's container: (dict "root" $ "node" <values of the pool>). */ -}}

{{- define "larder.agent" -}}
{{- $values := .root.Values -}}
{{- $ports := $values.ports -}}
{{- $agent := .node.agent -}}
{{- $speaks := include "larder.agentSpeaks" . -}}
{{- $own := "[]" -}}
{{- if $speaks -}}{{- $own = "[{name: LARDER_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]" -}}{{- end -}}
- name: agent
  image: {{ include "larder.image" .root | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command:
    - /usr/local/bin/larder-node
    - agent
    - --run-dir=/run/larder
    - --user={{ include "larder.proxyUser" .root }}
    - --admin=127.0.0.1:{{ int $ports.agentAdmin }}
    {{- if ne (int $ports.mirror) 7439 }}
    - --listen=127.0.0.1:{{ int $ports.mirror }}
    {{- end }}
    {{- if and $values.metrics.enabled $values.metrics.agent.enabled }}
    - {{ printf "--agent-metrics=%s:%d" $values.metrics.address (int $ports.agentMetrics) | quote }}
    {{- end }}
    - --engine={{ .node.engine }}
    - --placement={{ $agent.placement }}
    - --registries=/etc/larder/registries.toml
    {{- with $agent.criSocket }}
    - {{ printf "--cri-socket=%s" . | quote }}
    {{- end }}
    {{- with $agent.containerdConfig }}
    - {{ printf "--containerd-config=%s" . | quote }}
    {{- end }}
    {{- with $agent.crioConfig }}
    - {{ printf "--crio-config=%s" . | quote }}
    {{- end }}
    {{- range $agent.crioRegistries }}
    - {{ printf "--registry=%s" . | quote }}
    {{- end }}
    {{- if $agent.engineRestart.allow }}
    - --allow-engine-restart=true
    - {{ printf "--engine-restart-command=%s" $agent.engineRestart.command | quote }}
    - --engine-restart-limit={{ int $agent.engineRestart.limitSeconds }}
    {{- end }}
    {{- if $speaks }}
    - --kubernetes=true
    {{- end }}
    - --log-format={{ .node.logFormat }}
    {{- range $agent.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  {{- with include "larder.environment" (dict "node" .node "own" $own "more" $agent.extraEnv) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if and $values.metrics.enabled $values.metrics.agent.enabled }}
  ports:
    - name: agent-metrics
      containerPort: {{ int $ports.agentMetrics }}
  {{- end }}
  securityContext:
    runAsUser: 0
    runAsGroup: 0
    runAsNonRoot: false
    readOnlyRootFilesystem: true
    # Kubernetes allows nothing else beside SYS_ADMIN.
    allowPrivilegeEscalation: true
    {{- if $agent.privileged }}
    privileged: true
    {{- else }}
    privileged: false
    capabilities:
      drop: [ALL]
      add:
        # A mount namespace of its own, with the entry that the kernel takes away when the agent dies.
        - SYS_ADMIN
        # Follows /proc/<engine>/root, where the engine's socket and files are, and sees who holds a port.
        - SYS_PTRACE
        # The engine's files and folders may be closed to everyone but their owner, who need not be root.
        - DAC_OVERRIDE
        # A file that is replaced keeps its owner, its mode and its set-group-ID bit.
        - CHOWN
        - FOWNER
        - FSETID
        # Ends a hung proxy, which is another user's process.
        - KILL
        # Closes connections that wait for a proxy which cannot answer any more (SOCK_DESTROY).
        - NET_ADMIN
        {{- if $agent.engineRestart.allow }}
        # Runs the engine's own check of its configuration, and the restart command, in the node's view of its files.
        - SYS_CHROOT
        {{- end }}
        {{- range $agent.extraCapabilities }}
        - {{ . }}
        {{- end }}
    {{- end }}
    {{- with $agent.seccompProfile }}
    seccompProfile:
      {{- include "larder.profile" . | nindent 6 }}
    {{- end }}
    {{- if and $agent.appArmorProfile (semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version) }}
    appArmorProfile:
      {{- include "larder.profile" $agent.appArmorProfile | nindent 6 }}
    {{- end }}
    {{- with $agent.seLinuxOptions }}
    seLinuxOptions:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  # Ready is: the engine was seen to ask the proxy.
  readinessProbe:
    httpGet:
      host: 127.0.0.1
      port: {{ int $ports.agentAdmin }}
      path: /readyz
    {{- toYaml $agent.readinessProbe | nindent 4 }}
  # A grace of one second, because a hung process uses none, and its entry in the engine's files goes with it.
  livenessProbe:
    httpGet:
      host: 127.0.0.1
      port: {{ int $ports.agentAdmin }}
      path: /livez
    terminationGracePeriodSeconds: 1
    {{- toYaml $agent.livenessProbe | nindent 4 }}
  {{- with $agent.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: run
      mountPath: /run/larder
    # The whole folder: a single mounted file (subPath) would never change.
    - name: registries
      mountPath: /etc/larder
      readOnly: true
    {{- if $speaks }}
    - name: kubernetes
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
    {{- end }}
{{- end -}}

{{- /* A profile. A pool that overrides the type of the rest has inherited the name of a file that its own type does not want. */ -}}
{{- define "larder.profile" -}}
type: {{ .type }}
{{- if eq .type "Localhost" }}
localhostProfile: {{ .localhostProfile | quote }}
{{- end }}
{{- end -}}

{{- /* AppArmor before Kubernetes 1.30, where it was an annotation: (dict "root" $ "node" …). */ -}}
{{- define "larder.appArmorAnnotation" -}}
{{- with .node.agent.appArmorProfile -}}
{{- if semverCompare "<1.30-0" $.root.Capabilities.KubeVersion.Version -}}
{{- $words := dict "Unconfined" "unconfined" "RuntimeDefault" "runtime/default" "Localhost" (printf "localhost/%s" (default "" .localhostProfile)) -}}
container.apparmor.security.beta.kubernetes.io/agent: {{ get $words .type }}
{{- end -}}
{{- end -}}
{{- end -}}
