{{/* Labels of every object; the argument is {root, component}. */}}
{{- define "wsha.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{ include "wsha.selector" . }}
{{- end }}

{{/* Labels of pods: another version of the chart alone replaces none. */}}
{{- define "wsha.podLabels" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{ include "wsha.selector" . }}
{{- end }}

{{/* Labels that choose the pods of a component; the controller knows those of the data plane. */}}
{{- define "wsha.selector" -}}
app.kubernetes.io/name: wsha
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Image of a component; the argument is {root, of}: its values. */}}
{{- define "wsha.image" -}}
{{ printf "%s/%s:%s" (trimSuffix "/" .root.Values.image.registry) .of.image (coalesce .of.tag .root.Values.image.tag .root.Chart.AppVersion) }}
{{- end }}

{{/* Where gateways find the controller's replicas. */}}
{{- define "wsha.stream" -}}
wsha-controller.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Secret of a certificate that the controller does not issue itself; empty if there is none. */}}
{{- define "wsha.tlsSecret" -}}
{{ .Values.tls.secretName | default (ternary "wsha-controller-tls" "" (not (empty .Values.tls.certManager.issuerRef))) }}
{{- end }}

{{/* For containers that need no right at all. */}}
{{- define "wsha.unprivileged" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A pod of the controller's program that ends by itself; the argument is {root, component, args}. */}}
{{- define "wsha.job" -}}
restartPolicy: Never
serviceAccountName: wsha-controller
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.controller.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.controller.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsUser: 65532
  runAsGroup: 65532
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
containers:
  - name: {{ .component }}
    image: {{ include "wsha.image" (dict "root" .root "of" .root.Values.controller) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toYaml .args | nindent 6 }}
    securityContext: {{ include "wsha.unprivileged" .root | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 32Mi}
      limits: {memory: 128Mi}
{{- end }}
