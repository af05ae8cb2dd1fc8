{{/* The name of the release's objects. */}}
{{- define "tollgate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods. They never change. */}}
{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tollgate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "tollgate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tollgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The port where an app calls HTTPS: that of the first listener for requests, or of the first one. */}}
{{- define "tollgate.callPort" -}}
{{- $port := (index .Values.listeners 0).port -}}
{{- range reverse .Values.listeners -}}{{- if eq (default "http" .kind) "http" -}}{{- $port = .port -}}{{- end -}}{{- end -}}
{{- int $port -}}
{{- end -}}

{{- define "tollgate.certificateSecret" -}}
{{- default (printf "%s-tls" (include "tollgate.fullname" .)) .Values.identity.certificate.secret.name -}}
{{- end -}}

{{- define "tollgate.adminSecret" -}}
{{- default (printf "%s-admin" (include "tollgate.fullname" .)) .Values.admin.existingSecret -}}
{{- end -}}

{{/* The names that callers know the gateway by: a list, as JSON. */}}
{{- define "tollgate.names" -}}
{{- $name := include "tollgate.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
{{- $own := list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) (printf "%s.%s.svc.cluster.local" $name $namespace) -}}
{{- concat $own .Values.names | uniq | toJson -}}
{{- end -}}

{{/* The trust domain that the source of the certificate brings with it, if any. */}}
{{- define "tollgate.ownTrustDomain" -}}
{{- $certificate := .Values.identity.certificate -}}
{{- if eq $certificate.source "csiDriverSpiffe" -}}{{ $certificate.csiDriverSpiffe.trustDomain }}
{{- else if eq $certificate.source "spire" -}}{{ $certificate.spire.trustDomain }}
{{- end -}}
{{- end -}}

{{/* Whether pods keep a volume of their own: as text, empty for no. */}}
{{- define "tollgate.claims" -}}
{{- if and .Values.persistence.enabled (eq .Values.kind "StatefulSet") -}}true{{- end -}}
{{- end -}}

{{/* host:port, with brackets around an IPv6 address. */}}
{{- define "tollgate.socket" -}}
{{- if contains ":" .address -}}[{{ .address }}]:{{ .port }}{{- else -}}{{ .address }}:{{ .port }}{{- end -}}
{{- end -}}
