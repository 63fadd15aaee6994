{{- define "parkwarden.labels" -}}
app.kubernetes.io/name: parkwarden
app.kubernetes.io/part-of: parkwarden
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "parkwarden.selector" -}}
app.kubernetes.io/name: parkwarden
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* How the operator's monitors ask. The labels pod, namespace and container are those of the process that is watched. */ -}}
{{- define "parkwarden.endpoint" -}}
port: http
honorLabels: true
interval: {{ .Values.scrape.interval }}
{{- if .Values.httpSecret }}
scheme: https
tlsConfig:
  {{- toYaml .Values.scrape.tlsConfig | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* JSON's texts and lists of texts are TOML's too. */ -}}
{{- define "parkwarden.toml" -}}
listen = "0.0.0.0:9465"

[watch]
threshold = {{ .Values.watch.threshold | toJson }}
interval = {{ .Values.watch.interval | toJson }}
prove = {{ .Values.watch.prove }}

[select]
{{- with .Values.select.namespaces }}
namespaces = {{ toJson . }}
{{- end }}
exclude_namespaces = {{ append .Values.select.excludeNamespaces .Release.Namespace | uniq | toJson }}
{{- if .Values.record.enabled }}

[record]
file = "/var/lib/parkwarden/recording.db"
keep = {{ .Values.record.keep | toJson }}
size_mib = {{ int .Values.record.sizeMib }}
{{- end }}
{{- with .Values.extraConfig }}

{{ . }}
{{- end }}
{{ end -}}
