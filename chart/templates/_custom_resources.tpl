{{- /* Whether there are custom resources, and who may write them. The objects are in crds.yaml and access.yaml. */ -}}

{{- /* Without ValidatingAdmissionPolicy nothing keeps a node's token to its own NodeMirror. By the version, not by what the API server lists: without one, as in a pipeline, helm
lists what it was compiled with. */ -}}
{{- define "larder.hasPolicies" -}}
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version -}}yes{{- end -}}
{{- end -}}

{{- /* Whether somebody of this release reads or writes them; nothing where nobody does. */ -}}
{{- define "larder.customResources" -}}
{{- if include "larder.controller" . -}}yes{{- end -}}
{{- end -}}
