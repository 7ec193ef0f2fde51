{{- /*
What the operator does with each kind of child. It applies: of what is not there that asks for create, too. get: whose an
object is that has the name of a child, and whether one that holds data is still the same before it is deleted.
A cluster without an optional API ignores its rule.
*/ -}}
{{- define "todo-operator.childVerbs" -}}
[get, list, watch, create, patch, delete]
{{- end }}

{{- define "todo-operator.rules" -}}
# The platforms that it works for. patch: its finalizer, and nothing of the spec.
- apiGroups: [todoplatform.dev]
  resources: [todoplatforms]
  verbs: [list, watch, patch]
# And the schedules. get: whether one is really gone, before its platform forgets it.
- apiGroups: [todoplatform.dev]
  resources: [recurringschedules]
  verbs: [get, list, watch, patch]
# What became of them.
- apiGroups: [todoplatform.dev]
  resources: [todoplatforms/status, recurringschedules/status]
  verbs: [patch]
# An owner reference that blocks the owner's deletion takes this right where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [todoplatform.dev]
  resources: [todoplatforms/finalizers]
  verbs: [update]
# Accounts without rights for pods, settings and dashboards, addresses.
- apiGroups: [""]
  resources: [serviceaccounts, configmaps, services]
  verbs: {{ include "todo-operator.childVerbs" . }}
# Keys and passwords that it draws; those that a manifest names are read by name. list and watch are of metadata only,
# to notice a change. RBAC cannot narrow this to some Secrets of a namespace: watchNamespaces narrows the namespaces.
- apiGroups: [""]
  resources: [secrets]
  verbs: {{ include "todo-operator.childVerbs" . }}
# What happened, for kubectl describe and kubectl events.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# The API and the workers; the database for evaluation.
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: {{ include "todo-operator.childVerbs" . }}
# Migrations.
- apiGroups: [batch]
  resources: [jobs]
  verbs: {{ include "todo-operator.childVerbs" . }}
# Growth by CPU and memory.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: {{ include "todo-operator.childVerbs" . }}
# How many pods an eviction leaves.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: {{ include "todo-operator.childVerbs" . }}
# Who may talk to whom, and the way in.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies, ingresses]
  verbs: {{ include "todo-operator.childVerbs" . }}
# The way in by the Gateway API.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: {{ include "todo-operator.childVerbs" . }}
# A platform's own database by CloudNativePG.
- apiGroups: [postgresql.cnpg.io]
  resources: [clusters]
  verbs: {{ include "todo-operator.childVerbs" . }}
# What sidecars read.
- apiGroups: [dapr.io]
  resources: [components, subscriptions, resiliencies, configurations]
  verbs: {{ include "todo-operator.childVerbs" . }}
# Growth by what waits in Kafka, and the login to look at it.
- apiGroups: [keda.sh]
  resources: [scaledobjects, triggerauthentications]
  verbs: {{ include "todo-operator.childVerbs" . }}
# Scrapes and alerts.
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: {{ include "todo-operator.childVerbs" . }}
{{ include "todo-operator.strimziRules" . }}
{{- end }}

{{- define "todo-operator.strimziRules" -}}
# Topics, and the user that sidecars log in as.
- apiGroups: [kafka.strimzi.io]
  resources: [kafkatopics, kafkausers]
  verbs: {{ include "todo-operator.childVerbs" . }}
# Which listener there is, and who signed its certificate.
- apiGroups: [kafka.strimzi.io]
  resources: [kafkas]
  verbs: [get]
{{- end }}

{{- define "todo-operator.kafkaNamespaceRules" -}}
{{ include "todo-operator.strimziRules" . }}
# The password that Strimzi draws for its user: read by name, and its change noticed by metadata.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
{{- end }}

{{- define "todo-operator.subject" -}}
- kind: ServiceAccount
  name: {{ include "todo-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
