{{/* The pod. */}}
{{- define "tollgate.pod" -}}
{{- $values := .Values -}}
{{- $certificate := $values.identity.certificate -}}
serviceAccountName: {{ include "tollgate.serviceAccount" . }}
# The API server for resources and keys of tokens; without either, no token of the pod is there to be stolen.
automountServiceAccountToken: {{ or (eq $values.resources.source "kubernetes") (and $values.identity.serviceAccounts.enabled $values.identity.serviceAccounts.inCluster) }}
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
terminationGracePeriodSeconds: {{ add $values.drain.delaySeconds $values.drain.timeoutSeconds 15 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne $values.kind "DaemonSet" }}
topologySpreadConstraints: {{- include "tollgate.spread" . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  # Secrets are read by this group. Files that the gateway made keep their modes.
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
  {{- if include "tollgate.lowPorts" . }}
  # For listeners below 1024, without a capability.
  sysctls:
    - {name: net.ipv4.ip_unprivileged_port_start, value: "1"}
  {{- end }}
{{- if eq $certificate.source "spire" }}
initContainers: {{- include "tollgate.spiffeHelper" . | nindent 2 }}
{{- end }}
containers:
  - name: tollgate
    image: {{ include "tollgate.image" . }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: [serve]
    env:
      # For commands in the pod too: `kubectl exec … -- tollgate calls`.
      - {name: TOLLGATE_CONFIG, value: /etc/tollgate/settings/tollgate.yaml}
      {{- if eq $values.resources.source "kubernetes" }}
      # Who writes status, in the Lease.
      - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      {{- end }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    ports:
      {{- range $values.listeners }}
      - {name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP}
      {{- end }}
      - {name: admin, containerPort: {{ $values.admin.port }}, protocol: TCP}
    # A journal of millions of calls takes a while to be read at the start.
    startupProbe: {httpGet: {path: /healthz, port: admin}, periodSeconds: 2, failureThreshold: 150}
    livenessProbe: {httpGet: {path: /healthz, port: admin}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
    readinessProbe: {httpGet: {path: /readyz, port: admin}, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 1}
    resources: {{- toYaml $values.containerResources | nindent 6 }}
    securityContext: {{- include "tollgate.restricted" . | nindent 6 }}
    volumeMounts:
      - {name: settings, mountPath: /etc/tollgate/settings, readOnly: true}
      {{- if eq $values.resources.source "files" }}
      - {name: resources, mountPath: /etc/tollgate/resources, readOnly: true}
      {{- end }}
      - {name: {{ include "tollgate.certificateVolume" . }}, mountPath: /etc/tollgate/certificate, readOnly: true}
      {{- range $domain, $_ := $values.identity.trustDomains }}
      - {name: {{ include "tollgate.bundleVolume" $domain }}, mountPath: /etc/tollgate/bundles/{{ $domain }}, readOnly: true}
      {{- end }}
      {{- if $values.interception.secret }}
      - {name: interception, mountPath: /etc/tollgate/interception, readOnly: true}
      {{- end }}
      - {name: admin, mountPath: /etc/tollgate/admin, readOnly: true}
      {{- if and $values.telemetry.endpoint $values.telemetry.headers }}
      - {name: telemetry, mountPath: /etc/tollgate/telemetry, readOnly: true}
      {{- end }}
      {{- if $values.postgres.address }}
      - {name: postgres, mountPath: /etc/tollgate/postgres, readOnly: true}
      {{- end }}
      {{- if .Values.alerts.webhook.url }}
      - {name: alerts, mountPath: /etc/tollgate/alerts, readOnly: true}
      {{- end }}
      {{- if include "tollgate.redisFiles" . }}
      - {name: redis, mountPath: /etc/tollgate/redis, readOnly: true}
      {{- end }}
      - {name: data, mountPath: /var/lib/tollgate}
      # What SQLite sorts for a large report.
      - {name: tmp, mountPath: /tmp}
      {{- if $values.seal.enabled }}
      - {name: seal, mountPath: /var/lib/tollgate-seal}
      {{- if $values.seal.existingSecret }}
      # Only the key: the last seals are written beside it.
      - {name: seal-key, mountPath: /var/lib/tollgate-seal/seal.key, subPath: seal.key, readOnly: true}
      {{- end }}
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes: {{- include "tollgate.volumes" . | nindent 2 }}
{{- end -}}

{{/* What the Pod Security Standard `restricted` asks of a container, and a root that cannot be written. */}}
{{- define "tollgate.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Whether a listener has a port below 1024: as text, empty for no. */}}
{{- define "tollgate.lowPorts" -}}
{{- range .Values.listeners -}}{{- if lt (int .port) 1024 -}}true{{- end -}}{{- end -}}
{{- end -}}

{{- define "tollgate.spread" -}}
{{- $selector := dict "matchLabels" (include "tollgate.selector" . | fromYaml) -}}
{{- $constraints := .Values.topologySpreadConstraints -}}
{{- if not $constraints -}}
{{- $constraints = list
  (dict "maxSkew" 1 "topologyKey" "topology.kubernetes.io/zone" "whenUnsatisfiable" "ScheduleAnyway")
  (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- $all := list -}}
{{- range $constraints -}}
{{- $all = append $all (merge (deepCopy .) (dict "labelSelector" $selector)) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* spiffe-helper keeps the SVID of the SPIRE agent in files for the gateway. */}}
{{- define "tollgate.spiffeHelper" -}}
- name: spiffe-helper
  image: {{ .Values.identity.certificate.spire.helperImage }}
  # It goes on beside the gateway, and is ready before it starts.
  restartPolicy: Always
  args: [-config, /etc/spiffe-helper/helper.conf]
  startupProbe: {httpGet: {path: /ready, port: 8081}, periodSeconds: 1, failureThreshold: 120}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 64Mi}
  securityContext: {{- include "tollgate.restricted" . | nindent 4 }}
  volumeMounts:
    - {name: spiffe-helper, mountPath: /etc/spiffe-helper, readOnly: true}
    - {name: workload-api, mountPath: /spiffe-workload-api, readOnly: true}
    - {name: certificate, mountPath: /etc/tollgate/certificate}
{{- end -}}
