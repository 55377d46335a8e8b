{{- define "floodgate.name" -}}
{{- printf "%s-%s" .root.Release.Name .role | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "floodgate.selector" -}}
app.kubernetes.io/name: floodgate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "floodgate.labels" -}}
{{ include "floodgate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "floodgate.image" -}}
{{- $image := .image | default .root.Values.image -}}
{{- $repository := required (printf "%s.repository is required: the registry and name of the image that you have pushed." .key) $image.repository -}}
{{- printf "%s:%s" $repository ($image.tag | default .root.Chart.AppVersion) | quote -}}
{{- end -}}

{{/* Where the variables of a role come from. Later sources win. */}}
{{- define "floodgate.envFrom" -}}
- configMapRef: {name: {{ include "floodgate.name" (dict "root" .root "role" "settings") }}}
{{- range .secrets }}
- secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- define "floodgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "floodgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/*
The Deployment of a role. Takes: root, role, values (of the role), command, secrets, env, port (that the probes ask), live and
ready (paths), grace (seconds from SIGTERM), drain (seconds before it, in which callers learn that the pod is going), and image
with its key, if it is not the chart's.
*/}}
{{- define "floodgate.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "floodgate.name" . }}
  labels: {{- include "floodgate.labels" . | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ .values.replicas | default 1 }}
  {{- end }}
  selector:
    matchLabels: {{- include "floodgate.selector" . | nindent 6 }}
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  template:
    metadata:
      labels: {{- include "floodgate.labels" . | nindent 8 }}
      annotations:
        checksum/settings: {{ toJson .root.Values.settings | sha256sum }}
        {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: {{ add .grace .drain }}
      securityContext: {{- include "floodgate.podSecurity" . | nindent 8 }}
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "floodgate.selector" . | nindent 14 }}
      containers:
        - name: {{ .role }}
          image: {{ include "floodgate.image" (dict "root" .root "image" .image "key" (.key | default "image")) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: {{ toJson .command }}
          envFrom: {{- include "floodgate.envFrom" . | nindent 12 }}
          {{- if .env }}
          env:
            {{- range $name, $value := .env }}
            - {name: {{ $name }}, value: {{ $value | quote }}}
            {{- end }}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ .port }}}
            {{- if ne (int .port) 9465 }}{{ if hasKey .env "FLOODGATE_METRICS_ADDRESS" }}
            - {name: metrics, containerPort: 9465}
            {{- end }}{{ end }}
          startupProbe:
            httpGet: {path: {{ .live }}, port: http}
            periodSeconds: 2
            timeoutSeconds: 10
            failureThreshold: 60 # two minutes
          livenessProbe:
            httpGet: {path: {{ .live }}, port: http}
            periodSeconds: 20
            timeoutSeconds: 15
            failureThreshold: 6 # two minutes: an event loop that is busy is not dead
          readinessProbe:
            httpGet: {path: {{ .ready }}, port: http}
            periodSeconds: 5
            timeoutSeconds: 10
          {{- if .drain }}
          lifecycle:
            preStop:
              exec: {command: [sleep, {{ .drain | quote }}]}
          {{- end }}
          securityContext: {{- include "floodgate.containerSecurity" . | nindent 12 }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            - {name: scratch, mountPath: /tmp}
            - {name: scratch, mountPath: /var/lib/floodgate}
      volumes:
        - name: scratch
          emptyDir: {sizeLimit: 1Gi}
{{- end -}}
