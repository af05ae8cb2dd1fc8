{{/* What the schema cannot say of values that do not fit each other. */}}
{{- define "tollgate.checks" -}}
{{- $values := .Values -}}
{{- $certificate := $values.identity.certificate -}}
{{- if and (eq $certificate.source "certManager") (not $certificate.certManager.issuerRef.name) -}}
{{- fail "identity.certificate.certManager.issuerRef.name: name the issuer that signs the gateway's certificate" -}}
{{- end -}}
{{- if and (has $certificate.source (list "csiDriverSpiffe" "spire")) (not (include "tollgate.ownTrustDomain" .)) -}}
{{- fail (printf "identity.certificate.%s.trustDomain: name the trust domain of the installation" $certificate.source) -}}
{{- end -}}
{{- if eq $certificate.source "volume" -}}
{{- $known := dict -}}
{{- range $values.extraVolumes -}}{{- $_ := set $known .name true -}}{{- end -}}
{{- if not (hasKey $known $certificate.volume.name) -}}
{{- fail "identity.certificate.volume.name: name one of extraVolumes" -}}
{{- end -}}
{{- end -}}
{{- if not (or $values.identity.serviceAccounts.enabled $values.identity.tokens $values.identity.trustDomains (include "tollgate.ownTrustDomain" .)) -}}
{{- fail "identity: nobody could call: enable serviceAccounts, or list tokens or trustDomains" -}}
{{- end -}}
{{- if and $values.telemetry.headers (hasPrefix "http:" $values.telemetry.endpoint) -}}
{{- fail "telemetry.headers: are sent over https only: change telemetry.endpoint" -}}
{{- end -}}
{{- if and $values.telemetry.headers (not $values.telemetry.endpoint) -}}
{{- fail "telemetry.endpoint: name the collector that telemetry.headers are for" -}}
{{- end -}}
{{- if and $values.postgres.address (not $values.postgres.passwordSecret) -}}
{{- fail "postgres.passwordSecret: name the Secret with the password for postgres.address" -}}
{{- end -}}
{{- if and $values.redis.username (not $values.redis.passwordSecret) -}}
{{- fail "redis.passwordSecret: name the Secret with the password of redis.username" -}}
{{- end -}}
{{- if and $values.alerts.webhook.url (not $values.alerts.webhook.signingSecret) -}}
{{- fail "alerts.webhook.signingSecret: name the Secret that messages to alerts.webhook.url are signed with" -}}
{{- end -}}
{{- if and $values.redis.caSecret (not $values.redis.tls) -}}
{{- fail "redis.tls: is false, so that redis.caSecret verifies nothing" -}}
{{- end -}}
{{- if and $values.persistence.existingClaim (or (ne $values.kind "Deployment") (gt (int $values.replicas) 1)) -}}
{{- fail "persistence.existingClaim: is for a Deployment with one replica: a data directory belongs to one pod" -}}
{{- end -}}
{{- if and $values.persistence.hostPath (ne $values.kind "DaemonSet") -}}
{{- fail "persistence.hostPath: is for a DaemonSet: a data directory belongs to one pod, and a node runs one" -}}
{{- end -}}
{{- $forwards := false -}}
{{- range $values.listeners -}}{{- if eq (default "http" .kind) "forward" -}}{{- $forwards = true -}}{{- end -}}{{- end -}}
{{- if and $values.interception.secret (not $forwards) -}}
{{- fail "interception.secret: is for a listener with kind: forward" -}}
{{- end -}}
{{- range $index, $listener := $values.listeners -}}
{{- if and (has (default "http" $listener.kind) (list "hbone" "tcp")) (not (or $values.identity.trustDomains (include "tollgate.ownTrustDomain" $))) -}}
{{- fail (printf "listeners[%d].kind: its callers are proven by certificates: list the mesh's own trust domain in identity.trustDomains" $index) -}}
{{- end -}}
{{- if and $values.hostNetwork (lt (int $listener.port) 1024) -}}
{{- fail (printf "listeners[%d].port: with hostNetwork at least 1024: the gateway runs without any capability" $index) -}}
{{- end -}}
{{- if eq (int $listener.port) (int $values.admin.port) -}}
{{- fail (printf "listeners[%d].port: %d is the admin port" $index (int $listener.port)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (eq $values.kind "DaemonSet") -}}
{{- fail "autoscaling.enabled: a DaemonSet has one pod on each node and is not scaled" -}}
{{- end -}}
{{- end -}}
