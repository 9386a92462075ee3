{{- /* One node pool: (dict "root" $ "node" <values of the pool> "pool" <name, or ""> "label" <nodeLabel> "earlier" [<nodeLabel>…]).

There is no PodDisruptionBudget: a drain leaves a DaemonSet's Pods alone, and one that evicts them all the same must not be held up by us,
because a node without Larder pulls directly. How many Pods are away in an upgrade is maxUnavailable's business. */ -}}
{{- define "larder.daemonset" -}}
{{- $values := .root.Values -}}
{{- $poolLabel := dict "larder.dev/pool" (default "default" .pool) -}}
{{- $selector := merge (dict) (fromYaml (include "larder.selectorLabels" .root)) $poolLabel -}}
{{- $appArmor := fromYaml (include "larder.appArmorAnnotation" (dict "root" .root "node" .node)) -}}
{{- $containers := dict "root" .root "node" .node "pool" .pool -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ include "larder.fullname" .root }}-node{{ with .pool }}-{{ . }}{{ end }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "larder.metadata" (dict "root" .root "labels" (merge (dict "app.kubernetes.io/component" "node") $poolLabel)) | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- toYaml $selector | nindent 6 }}
  updateStrategy:
    {{- toYaml .node.updateStrategy | nindent 4 }}
  template:
    metadata:
      labels:
        {{- $own := fromYaml (include "larder.ownLabels" .root) }}
        {{- merge (dict) $selector $own .node.podLabels $values.commonLabels | toYaml | nindent 8 }}
      annotations:
        {{- $agentFirst := dict "kubectl.kubernetes.io/default-container" "agent" }}
        {{- $certificates := dict }}
        {{- /* Read at the start alone, so that a change needs one. */}}
        {{- with .node.corporateProxy.ca }}{{ $_ := set $certificates "larder.dev/upstream-ca" (sha256sum . | trunc 16) }}{{ end }}
        {{- merge (dict) $appArmor $certificates .node.podAnnotations $values.commonAnnotations $agentFirst | toYaml | nindent 8 }}
    spec:
      serviceAccountName: {{ include "larder.serviceAccount" .root | quote }}
      # The agent alone speaks to Kubernetes, and has its token by a volume (`kubernetes`) that the proxy does not have.
      automountServiceAccountToken: false
      {{- if include "larder.cache" .root }}
      # Where the cluster cache is, without DNS.
      enableServiceLinks: true
      {{- else }}
      enableServiceLinks: false
      {{- end }}
      # The engine asks the proxy on the node's loopback.
      hostNetwork: true
      # The engine is the process at the other end of its socket, and what is seen of the node is seen through /proc/<its pid>/root: no path of
      # the node is mounted for it.
      hostPID: true
      # The node's own resolver: names of registries have to resolve while the cluster's DNS is away, which may wait for an image itself.
      dnsPolicy: Default
      {{- with .node.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
      {{- with .node.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .node.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  {{- include "larder.nodeExpressions" . | nindent 18 }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      initContainers:
        {{- if eq .node.store.type "hostPath" }}
        {{- include "larder.prepareStore" $containers | nindent 8 }}
        {{- end }}
        {{- include "larder.proxy" $containers | nindent 8 }}
      containers:
        {{- include "larder.agent" $containers | nindent 8 }}
      volumes:
        # What the agent tells the proxy: settings and a key, gone with the Pod.
        - name: run
          emptyDir:
            medium: Memory
            sizeLimit: 16Mi
        - name: registries
          configMap:
            name: {{ include "larder.fullname" .root }}-registries
        {{- if include "larder.agentSpeaks" $containers }}
        {{- include "larder.kubernetesVolume" . | nindent 8 }}
        {{- end }}
        {{- with include "larder.upstreamCaVolume" $containers }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with include "larder.clusterCacheVolume" .root }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- include "larder.storeVolume" .node | nindent 8 }}
{{- end -}}
