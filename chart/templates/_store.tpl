{{- /* The store: where it is mounted, and how large its volume may be. Takes the values of a pool. */ -}}

{{- /* Bytes of a size as larder-node reads it: 500MB, 20GiB. */ -}}
{{- define "larder.bytes" -}}
{{- $digits := regexFind "^[0-9]+" . -}}
{{- $unit := . | trimPrefix $digits | lower | trimSuffix "b" -}}
{{- $factors := dict "" 1 "k" 1000 "m" 1000000 "g" 1000000000 "t" 1000000000000 "ki" 1024 "mi" 1048576 "gi" 1073741824 "ti" 1099511627776 -}}
{{- mul (int64 $digits) (int64 (get $factors $unit)) -}}
{{- end -}}

{{- define "larder.storeVolume" -}}
- name: store
{{- if eq .store.type "hostPath" }}
  # The only path of the node in this Pod.
  hostPath:
    path: {{ .store.path | quote }}
    type: DirectoryOrCreate
{{- else }}
  emptyDir:
    sizeLimit: {{ default (div (mul (int64 (include "larder.bytes" .store.size)) 5) 4 | toString) .store.emptyDirSizeLimit | quote }}
{{- end }}
{{- end -}}

{{- /* An emptyDir belongs to root, so the proxy makes its store inside; a hostPath is the store, and was given to the proxy before. */ -}}
{{- define "larder.storeMount" -}}
- name: store
  mountPath: {{ ternary "/var/lib/larder/store" "/var/lib/larder" (eq .store.type "hostPath") }}
{{- end -}}
