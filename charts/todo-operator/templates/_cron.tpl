{{- /*
What CEL can say of a cron expression, field by field. It refuses nothing that the platform takes (recurrence/src/cron);
what it lets through and is wrong all the same, such as 30 February, is a condition of the resource.
*/ -}}
{{- define "todo-operator.cronField" -}}
{{- $item := printf `(\*|%[1]s(-%[1]s)?)(/0*[1-9][0-9]*)?` .value -}}
{{- $any := $item -}}
{{- with .also }}{{ $any = printf "(%s|%s)" $item . }}{{ end -}}
(?i)^{{ $any }}(,{{ $any }})*${{ with .whole }}|{{ . }}{{ end }}
{{- end }}

{{- define "todo-operator.cronValidations" -}}
{{- $where := .where }}
{{- $sixty := `0*[0-5]?[0-9]` }}
{{- $fields := list
  (dict "name" "second" "at" "size(variables.fields) - 6" "value" $sixty "takes" "0-59, lists, ranges, steps, *")
  (dict "name" "minute" "at" "size(variables.fields) - 5" "value" $sixty "takes" "0-59, lists, ranges, steps, *")
  (dict "name" "hour" "at" "size(variables.fields) - 4" "value" `0*(1?[0-9]|2[0-3])` "takes" "0-23, lists, ranges, steps, *")
  (dict "name" "day of the month" "at" "size(variables.fields) - 3" "value" `0*([1-9]|[12][0-9]|3[01])` "also" `L|LW|L-[0-9]+|[0-9]+W` "whole" `^\?$` "takes" "1-31, lists, ranges, steps, *, ?, L, L-n, LW, nW")
  (dict "name" "month" "at" "size(variables.fields) - 2" "value" `(0*([1-9]|1[0-2])|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)` "takes" "1-12 or JAN-DEC, lists, ranges, steps, *")
  (dict "name" "weekday" "at" "size(variables.fields) - 1" "value" `(0*[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)` "also" `([0-9]+|[A-Z]{3})(#[1-5]|L)` "whole" `^\?$` "takes" "0-7 or SUN-SAT, lists, ranges, steps, *, ?, dL, d#1 to d#5")
}}
- expression: variables.macro || size(variables.fields) == 5 || size(variables.fields) == 6
  message: "{{ $where }}: a cron expression has five fields (minute hour day-of-month month weekday), or six with seconds first, or is a macro such as @daily"
- expression: >-
    !variables.macro || variables.cron.lowerAscii() in ['@yearly', '@annually', '@monthly', '@weekly', '@daily',
    '@midnight', '@hourly']
  message: "{{ $where }}: the macros are @yearly @annually @monthly @weekly @daily @midnight @hourly"
{{- range $fields }}
- expression: >-
    variables.macro || !(size(variables.fields) in {{ if eq .name "second" }}[6]{{ else }}[5, 6]{{ end }}) ||
    variables.fields[{{ .at }}].matches(r'{{ include "todo-operator.cronField" . }}')
  message: "{{ $where }}: the {{ .name }} takes {{ .takes }}"
{{- end }}
{{- end }}
