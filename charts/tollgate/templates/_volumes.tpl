{{/* The volume of a trust domain's bundle: a name of its own for each. */}}
{{- define "tollgate.bundleVolume" -}}
bundle-{{ . | sha256sum | trunc 10 }}
{{- end -}}

{{- define "tollgate.certificateVolume" -}}
{{- $certificate := .Values.identity.certificate -}}
{{- if eq $certificate.source "volume" -}}{{ $certificate.volume.name }}{{- else -}}certificate{{- end -}}
{{- end -}}

{{/* A claim template. Arguments: root, name, size. */}}
{{- define "tollgate.claim" -}}
{{- $root := index . 0 -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ index . 1 }}
    labels: {{- include "tollgate.selector" $root | nindent 6 }}
    {{- with $root.Values.persistence.annotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    accessModes: {{- toYaml $root.Values.persistence.accessModes | nindent 6 }}
    {{- with $root.Values.persistence.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ index . 2 }}
{{- end -}}

{{/* Whether there are files for the store of shared limits: as text, empty for no. */}}
{{- define "tollgate.redisFiles" -}}
{{- with .Values.redis -}}{{- if and .addresses (or .passwordSecret (and .tls .caSecret)) -}}true{{- end -}}{{- end -}}
{{- end -}}

{{- define "tollgate.volumes" -}}
{{- $values := .Values -}}
{{- $certificate := $values.identity.certificate -}}
{{- $persistence := $values.persistence -}}
- name: settings
  configMap: {name: {{ include "tollgate.fullname" . }}}
{{- if eq $values.resources.source "files" }}
- name: resources
  configMap: {name: {{ include "tollgate.fullname" . }}-resources}
{{- end }}
{{- if eq $certificate.source "csiDriverSpiffe" }}
- name: certificate
  csi: {driver: spiffe.csi.cert-manager.io, readOnly: true}
{{- else if eq $certificate.source "spire" }}
- name: workload-api
  csi: {driver: csi.spiffe.io, readOnly: true}
- name: spiffe-helper
  configMap: {name: {{ include "tollgate.fullname" . }}-spiffe-helper}
- name: certificate
  emptyDir: {medium: Memory, sizeLimit: 4Mi}
{{- else if ne $certificate.source "volume" }}
- name: certificate
  secret: {secretName: {{ include "tollgate.certificateSecret" . }}, defaultMode: 0440}
{{- end }}
{{- range $domain, $bundle := $values.identity.trustDomains }}
- name: {{ include "tollgate.bundleVolume" $domain }}
  {{- if $bundle.configMap }}
  configMap: {name: {{ $bundle.configMap }}, items: [{key: {{ $bundle.key }}, path: {{ $bundle.key }}}]}
  {{- else }}
  secret: {secretName: {{ $bundle.secret }}, defaultMode: 0440, items: [{key: {{ $bundle.key }}, path: {{ $bundle.key }}}]}
  {{- end }}
{{- end }}
{{- if $values.interception.secret }}
- name: interception
  secret: {secretName: {{ $values.interception.secret }}, defaultMode: 0440}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
- name: admin
  secret: {secretName: {{ include "tollgate.adminSecret" . }}, defaultMode: 0440, items: [{key: token, path: token}]}
{{- if and $values.telemetry.endpoint $values.telemetry.headers }}
- name: telemetry
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $header := $values.telemetry.headers }}
      - secret: {name: {{ $header.secret }}, items: [{key: {{ $header.key }}, path: {{ $name }}}]}
      {{- end }}
{{- end }}
{{- if $values.postgres.address }}
- name: postgres
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ $values.postgres.passwordSecret }}, items: [{key: {{ $values.postgres.passwordKey }}, path: password}]}
      {{- if $values.postgres.caSecret }}
      - secret: {name: {{ $values.postgres.caSecret }}, items: [{key: {{ $values.postgres.caKey }}, path: ca.crt}]}
      {{- end }}
{{- end }}
{{- with $values.alerts.webhook }}
{{- if .url }}
- name: alerts
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ .signingSecret }}, items: [{key: {{ .signingKey }}, path: secret}]}
      {{- if .caSecret }}
      - secret: {name: {{ .caSecret }}, items: [{key: {{ .caKey }}, path: ca.crt}]}
      {{- end }}
{{- end }}
{{- end }}
{{- if include "tollgate.redisFiles" . }}
- name: redis
  projected:
    defaultMode: 0440
    sources:
      {{- with $values.redis }}
      {{- if .passwordSecret }}
      - secret: {name: {{ .passwordSecret }}, items: [{key: {{ .passwordKey }}, path: password}]}
      {{- end }}
      {{- if and .tls .caSecret }}
      - secret: {name: {{ .caSecret }}, items: [{key: {{ .caKey }}, path: ca.crt}]}
      {{- end }}
      {{- end }}
{{- end }}
{{- if and $values.seal.enabled $values.seal.existingSecret }}
- name: seal-key
  secret: {secretName: {{ $values.seal.existingSecret }}, defaultMode: 0440}
{{- end }}
{{- if include "tollgate.claims" . }}
{{- else if $persistence.existingClaim }}
- name: data
  persistentVolumeClaim: {claimName: {{ $persistence.existingClaim }}}
{{- else if $persistence.hostPath }}
- name: data
  hostPath: {path: {{ $persistence.hostPath }}, type: Directory}
{{- else }}
- name: data
  emptyDir: {sizeLimit: {{ $persistence.emptyDirSize }}}
{{- end }}
{{- if and $values.seal.enabled (not (include "tollgate.claims" .)) }}
- name: seal
  emptyDir: {sizeLimit: 1Mi}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
