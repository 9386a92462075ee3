{{- /* Whether there are custom resources, and who may write them. The objects are in crds.yaml and access.yaml. */ -}}

{{- /* Without ValidatingAdmissionPolicy nothing keeps a node's token to its own NodeMirror. By the version, not by what the API server lists: without one, as in a pipeline, helm
lists what it was compiled with. */ -}}
{{- define "larder.hasPolicies" -}}
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version -}}yes{{- end -}}
{{- end -}}

{{- /* Whether somebody of this release reads or writes them; nothing where nobody does. */ -}}
{{- define "larder.customResources" -}}
{{- if or (include "larder.controller" .) (include "larder.agentsSpeak" .) -}}yes{{- end -}}
{{- end -}}

{{- /* Why no agent speaks to the API server, in words that NOTES.txt says. Not refused, for the same reason as with the controller. */ -}}
{{- define "larder.noAgent" -}}
{{- if not (include "larder.hasPolicies" .) -}}
custom resources want Kubernetes 1.30 or later, and this is {{ .Capabilities.KubeVersion.Version }}
{{- else if and (not .Values.serviceAccount.create) (has (default "default" .Values.serviceAccount.name) (list "default" "builder" "deployer")) -}}
every Pod of the namespace that names no account would have the agents' rights (let serviceAccount.create one, or name one in serviceAccount.name)
{{- end -}}
{{- end -}}

{{- /* Whether the agents of a pool speak to it: (dict "root" $ "node" <values of the pool>). */ -}}
{{- define "larder.agentSpeaks" -}}
{{- if and .node.agent.kubernetes (not (include "larder.noAgent" .root)) -}}yes{{- end -}}
{{- end -}}

{{- /* Whether those of any do. */ -}}
{{- define "larder.agentsSpeak" -}}
{{- $some := .Values.agent.kubernetes -}}
{{- range .Values.pools -}}
{{- if and (dig "enabled" true .) (dig "agent" "kubernetes" false .) -}}{{- $some = true -}}{{- end -}}
{{- end -}}
{{- if and $some (not (include "larder.noAgent" .)) -}}yes{{- end -}}
{{- end -}}

{{- /* What a program needs to reach the API server, as automounting would give it to every container. */ -}}
{{- define "larder.kubernetesVolume" -}}
- name: kubernetes
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          optional: true
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end -}}
