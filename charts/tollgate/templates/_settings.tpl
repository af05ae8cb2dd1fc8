{{/* Where files are in the pod. */}}
{{- define "tollgate.certificateFiles" -}}
{{- $certificate := .Values.identity.certificate -}}
{{- if has $certificate.source (list "secret" "volume") -}}
{{- $files := get $certificate $certificate.source -}}
certFile: /etc/tollgate/certificate/{{ $files.cert }}
keyFile: /etc/tollgate/certificate/{{ $files.key }}
{{- else -}}
certFile: /etc/tollgate/certificate/tls.crt
keyFile: /etc/tollgate/certificate/tls.key
{{- end -}}
{{- end -}}

{{/* The address of the API server, for the keys of tokens: empty where it is not known or not needed. */}}
{{- define "tollgate.apiServer" -}}
{{- $accounts := .Values.identity.serviceAccounts -}}
{{- if and $accounts.enabled $accounts.inCluster -}}
{{- $service := lookup "v1" "Service" "default" "kubernetes" | default dict -}}
{{- $accounts.apiServer | default (dig "spec" "clusterIP" "" $service) -}}
{{- end -}}
{{- end -}}

{{/* `tollgate.yaml`. */}}
{{- define "tollgate.settings" -}}
{{- $values := .Values -}}
{{- $domains := dict -}}
{{- range $domain, $bundle := $values.identity.trustDomains -}}
{{- $_ := set $domains $domain (dict "bundleFile" (printf "/etc/tollgate/bundles/%s/%s" $domain $bundle.key)) -}}
{{- end -}}
{{- with include "tollgate.ownTrustDomain" . -}}
{{- $_ := set $domains . (dict "bundleFile" "/etc/tollgate/certificate/ca.crt") -}}
{{- end -}}
{{- $tokens := list -}}
{{- $accounts := $values.identity.serviceAccounts -}}
{{- $pod := "/var/run/secrets/kubernetes.io/serviceaccount" -}}
{{- if $accounts.enabled -}}
{{- $keys := dict "discovery" dict -}}
{{- with $accounts.jwksUrl -}}{{- $keys = dict "url" . -}}{{- end -}}
{{- $issuer := dict "kind" "kubernetes" "issuer" $accounts.issuer "audience" $accounts.audience "cluster" $accounts.cluster "keys" $keys -}}
{{- if $accounts.inCluster -}}
{{- $_ := set $issuer "caFile" (printf "%s/ca.crt" $pod) -}}
{{- $_ := set $issuer "tokenFile" (printf "%s/token" $pod) -}}
{{- end -}}
{{- $tokens = append $tokens $issuer -}}
{{- end -}}
{{- $tokens = concat $tokens $values.identity.tokens -}}
{{- $shown := "optional" -}}
{{- if not $tokens -}}{{- $shown = "required" -}}{{- else if not $domains -}}{{- $shown = "none" -}}{{- end -}}
{{- $listeners := list -}}
{{- range $values.listeners -}}
{{- $address := include "tollgate.socket" (dict "address" $values.bindAddress "port" .port) -}}
{{- $listener := dict "name" .name "address" $address -}}
{{- with .kind -}}{{- $_ := set $listener "kind" . -}}{{- end -}}
{{- with .destination -}}{{- $_ := set $listener "destination" . -}}{{- end -}}
{{- with .proxyProtocol -}}{{- $_ := set $listener "proxyProtocol" . -}}{{- end -}}
{{- if hasKey . "doubleHbone" -}}{{- $_ := set $listener "doubleHbone" .doubleHbone -}}{{- end -}}
{{- if not (has (default "http" .kind) (list "hbone" "tcp")) -}}
{{- $_ := set $listener "clientCertificate" (default $shown .clientCertificate) -}}
{{- end -}}
{{- with .protocols -}}{{- $_ := set $listener "protocols" . -}}{{- end -}}
{{- $listeners = append $listeners $listener -}}
{{- end -}}
{{- $identity := dict "certificate" (include "tollgate.certificateFiles" . | fromYaml) "trustDomains" $domains -}}
{{- if $tokens -}}{{- $_ := set $identity "tokens" $tokens -}}{{- end -}}
{{- $settings := dict "listeners" $listeners "names" (include "tollgate.names" . | fromJsonArray) "identity" $identity -}}
{{- with $values.interception -}}
{{- if .secret -}}
{{- $files := dict "caCertFile" (printf "/etc/tollgate/interception/%s" .cert) "caKeyFile" (printf "/etc/tollgate/interception/%s" .key) -}}
{{- $_ := set $settings "interception" $files -}}
{{- end -}}
{{- end -}}
{{- if eq $values.resources.source "files" -}}
{{- $_ := set $settings "resources" "/etc/tollgate/resources" -}}
{{- else -}}
{{- $watched := dict "cluster" $accounts.cluster "gatewayNamespace" .Release.Namespace -}}
{{- with include "tollgate.ownTrustDomain" . -}}{{- $_ := set $watched "trustDomain" . -}}{{- end -}}
{{- with $values.resources.kubernetes.namespaces -}}{{- $_ := set $watched "namespaces" . -}}{{- end -}}
{{- with $values.resources.kubernetes.gatewayApi -}}
{{- if .enabled -}}
{{- $addresses := .addresses | default (list (printf "%s.%s.svc" (include "tollgate.fullname" $) $.Release.Namespace)) -}}
{{- $asked := dict "addresses" $addresses -}}
{{- with .gatewayNamespaces -}}{{- $_ := set $asked "gatewayNamespaces" . -}}{{- end -}}
{{- $_ := set $watched "gatewayApi" $asked -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "resources" (dict "kubernetes" $watched) -}}
{{- end -}}
{{- $_ := set $settings "dataDir" "/var/lib/tollgate/data" -}}
{{- $admin := include "tollgate.socket" (dict "address" $values.bindAddress "port" $values.admin.port) -}}
{{- $_ := set $settings "admin" (dict "address" $admin "tokenFile" "/etc/tollgate/admin/token") -}}
{{- $_ := set $settings "drain" (dict "delay" (printf "%ds" (int $values.drain.delaySeconds)) "timeout" (printf "%ds" (int $values.drain.timeoutSeconds))) -}}
{{- $_ := set $settings "log" (dict "format" "json") -}}
{{- $ledger := dict -}}
{{- if $values.seal.enabled -}}{{- $_ := set $ledger "sealKeyFile" "/var/lib/tollgate-seal/seal.key" -}}{{- end -}}
{{- with $values.postgres -}}
{{- if .address -}}
{{- $postgres := dict "address" .address "database" .database "user" .user "passwordFile" "/etc/tollgate/postgres/password" -}}
{{- if .caSecret -}}{{- $_ := set $postgres "tls" (dict "caFile" "/etc/tollgate/postgres/ca.crt") -}}{{- end -}}
{{- $_ := set $ledger "postgres" $postgres -}}
{{- end -}}
{{- end -}}
{{- if $ledger -}}{{- $_ := set $settings "ledger" $ledger -}}{{- end -}}
{{- with $values.telemetry -}}
{{- if .endpoint -}}
{{- $otlp := dict "endpoint" .endpoint "logs" .logs "traces" (dict "sample" .sample) -}}
{{- $headers := dict -}}
{{- range $name, $_ := .headers -}}
{{- $_ := set $headers $name (dict "file" (printf "/etc/tollgate/telemetry/%s" $name)) -}}
{{- end -}}
{{- if $headers -}}{{- $_ := set $otlp "headers" $headers -}}{{- end -}}
{{- $_ := set $settings "telemetry" (dict "otlp" $otlp) -}}
{{- end -}}
{{- end -}}
{{- with $values.redis -}}
{{- if .addresses -}}
{{- $redis := dict "addresses" .addresses -}}
{{- with .sentinel -}}{{- $_ := set $redis "sentinel" . -}}{{- end -}}
{{- if .cluster -}}{{- $_ := set $redis "cluster" true -}}{{- end -}}
{{- with .username -}}{{- $_ := set $redis "username" . -}}{{- end -}}
{{- with .passwordSecret -}}{{- $_ := set $redis "passwordFile" "/etc/tollgate/redis/password" -}}{{- end -}}
{{- if .tls -}}{{- $_ := set $redis "tls" (.caSecret | empty | ternary dict (dict "caFile" "/etc/tollgate/redis/ca.crt")) -}}{{- end -}}
{{- $_ := set $settings "limits" (dict "redis" $redis) -}}
{{- end -}}
{{- end -}}
{{- with $values.alerts.webhook -}}
{{- if .url -}}
{{- $webhook := dict "url" .url "secretFile" "/etc/tollgate/alerts/secret" -}}
{{- if .caSecret -}}{{- $_ := set $webhook "caFile" "/etc/tollgate/alerts/ca.crt" -}}{{- end -}}
{{- $_ := set $settings "alerts" (dict "webhook" $webhook) -}}
{{- end -}}
{{- end -}}
{{- $settings = mergeOverwrite $settings (deepCopy $values.settings) -}}
{{- with include "tollgate.apiServer" . -}}
{{- $egress := get $settings "egress" | default dict -}}
{{- $ranges := append (get $egress "privateRanges" | default list) (printf "%s/%s" . (contains ":" . | ternary "128" "32")) -}}
{{- $_ := set $settings "egress" (set $egress "privateRanges" $ranges) -}}
{{- end -}}
{{- $settings | toYaml -}}
{{- end -}}
