{{- /* What the Pods of helm test have in common: no right at all. */ -}}

{{- define "larder.testPodSecurity" -}}
runAsUser: 65532
runAsGroup: 65532
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "larder.testContainer" -}}
image: {{ include "larder.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
resources:
  requests:
    cpu: 10m
    memory: 16Mi
  limits:
    memory: 64Mi
{{- end -}}
