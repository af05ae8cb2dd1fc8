{{/* What the gateway may do with objects: read them, and write their status and Events. */}}
{{- define "tollgate.rules" -}}
- apiGroups: [tollgate.dev]
  resources: [destinations, secretstores, credentials, grants, approvals, sourcepools, budgets]
  verbs: [list, watch]
- apiGroups: [tollgate.dev]
  resources: [destinations/status, secretstores/status, credentials/status, grants/status, approvals/status, sourcepools/status, budgets/status]
  verbs: [patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [list, watch]
{{- if .Values.resources.kubernetes.gatewayApi.enabled }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways, httproutes]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways/status, httproutes/status]
  verbs: [patch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackends]
  verbs: [list, watch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackends/status]
  verbs: [patch]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
