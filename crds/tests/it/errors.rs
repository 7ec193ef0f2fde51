//! Each mistake is one line: file, line, column, field, what is wrong, what is allowed.

use todo_crds::manifest::{MAX_FILE_BYTES, load};

/// A valid manifest; the cases break it.
const GOOD: &str = r#"apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata:
  name: home
spec:
  version: "0.1.0"
  paused: false
  api: {replicas: 1}
---
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata:
  name: weekly-review
spec:
  platformRef: {name: home}
  user: alice
  schedule:
    cron: "0 9 * * 1"
  timeZone: Europe/Berlin
  template:
    title: "Weekly review {{date}}"
    dueIn: 8h
    tags: [review]
    reminders:
      - before: 30m
"#;

fn errors(text: &str) -> Vec<String> {
    match load(&[("todo.yaml", text)]) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The errors after one replacement in [`GOOD`].
fn broken(from: &str, to: &str) -> Vec<String> {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} is not there once");
    errors(&GOOD.replace(from, to))
}

#[test]
fn the_manifest_that_the_cases_break_is_valid() {
    assert_eq!(errors(GOOD), [] as [&str; 0]);
}

#[test]
fn each_mistake_is_one_line_with_its_place_and_what_is_allowed() {
    let cases: &[(&str, &str, &str)] = &[
        // YAML itself
        (
            "  paused: false",
            "\tpaused: false",
            "todo.yaml:7:2: not YAML: tabs disallowed within this context (block indentation); check indentation, quotes and brackets here and on the line before",
        ),
        (
            "  api: {replicas: 1}",
            "  api: {replicas: 1",
            "todo.yaml:8:8: not YAML: unclosed bracket '{'; check indentation, quotes and brackets here and on the line before",
        ),
        (
            "  paused: false",
            "  paused: false\n  paused: true",
            "todo.yaml:8:3: spec.paused: written twice; keep one of them",
        ),
        (
            "  version: \"0.1.0\"",
            "  version: !semver \"0.1.0\"",
            "todo.yaml:6:20: spec.version: a tag is not allowed here; write the value without it",
        ),
        // What the document is
        (
            "kind: TodoPlatform",
            "kind: TodoPlatfrom",
            "todo.yaml:2:7: kind: \"TodoPlatfrom\" is not known here; did you mean TodoPlatform? allowed: TodoPlatform, RecurringSchedule",
        ),
        (
            "apiVersion: todoplatform.dev/v1alpha1\nkind: TodoPlatform",
            "apiVersion: todoplatform.dev/v1\nkind: TodoPlatform",
            "todo.yaml:1:13: apiVersion: \"todoplatform.dev/v1\" is not known here; allowed: todoplatform.dev/v1alpha1",
        ),
        (
            "kind: RecurringSchedule\n",
            "",
            "todo.yaml:10:1: kind: missing; allowed: TodoPlatform, RecurringSchedule",
        ),
        (
            "metadata:\n  name: home",
            "metadata: {}",
            "todo.yaml:3:1: metadata.name: missing; it is required",
        ),
        (
            "  name: home\n",
            "  name: Home\n",
            "todo.yaml:4:9: metadata.name: \"Home\" has the wrong form; allowed: lower-case letters, digits, hyphens and dots, letters or digits at both ends",
        ),
        (
            "  name: home\n",
            "  name: a-very-long-platform-name-that-is-not-for-people\n",
            "todo.yaml:4:9: metadata.name: \"a-very-long-platform-name-that-is-not-for-people\" cannot begin the names of the platform's parts; allowed: 1 to 40 lower-case letters, digits and hyphens, a letter first, no hyphen last",
        ),
        // Fields
        (
            "  paused: false",
            "  pausd: false",
            "todo.yaml:7:3: spec.pausd: unknown field; did you mean paused? allowed: api, auth, dapr, database, deletionPolicy, image, kafka, networkPolicy, notifications, observability, paused, upgrade, version, workers",
        ),
        (
            "    title:",
            "    titel:",
            "todo.yaml:21:5: spec.template.titel: unknown field; did you mean title? allowed: category, description, dueIn, priority, reminders, tags, title",
        ),
        (
            "  version: \"0.1.0\"",
            "  version: 0.1",
            "todo.yaml:6:12: spec.version: the number 0.1 does not belong here; allowed: a string: put it in quotes",
        ),
        (
            "  version: \"0.1.0\"",
            "  version: v0.1.0",
            "todo.yaml:6:12: spec.version: \"v0.1.0\" has the wrong form; allowed: a semantic version without a leading v, such as 1.4.0",
        ),
        (
            "  paused: false",
            "  paused: \"no\"",
            "todo.yaml:7:11: spec.paused: the string \"no\" does not belong here; allowed: true or false",
        ),
        (
            "  paused: false",
            "  deletionPolicy: retain",
            "todo.yaml:7:19: spec.deletionPolicy: \"retain\" is not a value; did you mean Retain? allowed: Retain, Delete",
        ),
        (
            "{replicas: 1}",
            "{replicas: 0}",
            "todo.yaml:8:19: spec.api.replicas: 0 is out of range; allowed: a whole number from 1 to 1000",
        ),
        (
            "{replicas: 1}",
            "{replicas: two}",
            "todo.yaml:8:19: spec.api.replicas: the string \"two\" does not belong here; allowed: a whole number from 1 to 1000",
        ),
        (
            "{replicas: 1}",
            "[1]",
            "todo.yaml:8:8: spec.api: a list does not belong here; allowed: the fields autoscaling, httpRoute, ingress, limits, rateLimit, replicas, resources, suspend",
        ),
        (
            "    tags: [review]",
            "    tags: review",
            "todo.yaml:23:11: spec.template.tags: the string \"review\" does not belong here; allowed: a list",
        ),
        (
            "    tags: [review]",
            "    tags: [on]",
            "todo.yaml:23:12: spec.template.tags[0]: the boolean true does not belong here; allowed: a string: put it in quotes",
        ),
        (
            "    tags: [review]",
            "    tags: [review, review]",
            "todo.yaml:23:20: spec.template.tags[1]: \"review\" is there twice; keep one of them",
        ),
        // Fields that depend on each other
        (
            "  paused: false",
            "  kafka: {}",
            "todo.yaml:7:10: spec.kafka: not exactly one kind of kafka is given; give one of strimzi, external, or leave kafka out",
        ),
        (
            "{replicas: 1}",
            "{autoscaling: {min: 5, max: 2, targetCPU: 70}}",
            "todo.yaml:8:36: spec.api.autoscaling.max: 2 is below min; allowed: 5 or more, or a smaller min",
        ),
        (
            "    cron: \"0 9 * * 1\"",
            "    cron: \"0 9 * * 1\"\n    every: 2d",
            "todo.yaml:17:3: spec.schedule: not exactly one rule is given; give one of cron, rrule, every",
        ),
        (
            "  timeZone: Europe/Berlin",
            "  timeZone: Europe/Berlin\n  at: \"09:00\"",
            "todo.yaml:20:7: spec.at: a cron expression holds its own times; at goes with rrule and every",
        ),
        (
            "    dueIn: 8h\n",
            "",
            "todo.yaml:23:5: spec.template.reminders: reminders are before the due time, and there is none; give spec.template.dueIn",
        ),
        (
            "before: 30m",
            "before: 9h",
            "todo.yaml:25:17: spec.template.reminders[0].before: 9h before the due time is before the task exists; allowed: at most dueIn, 8h",
        ),
        // What only this side knows
        (
            "\"0 9 * * 1\"",
            "\"0 25 * * 1\"",
            "todo.yaml:18:11: spec.schedule.cron: hour field \"25\": 25 is out of range; allowed are 0-23, lists, ranges, steps, *",
        ),
        (
            "cron: \"0 9 * * 1\"",
            "cron: \"0 0 30 2 *\"",
            "todo.yaml:18:11: spec.schedule.cron: \"0 0 30 2 *\" can never fire: no date matches it",
        ),
        (
            "cron: \"0 9 * * 1\"",
            "rrule: \"FREQ=HOURLY\"",
            "todo.yaml:18:12: spec.schedule.rrule: FREQ below daily is not allowed; allowed are DAILY, WEEKLY, MONTHLY, YEARLY (for shorter steps use every, such as 2h)",
        ),
        (
            "cron: \"0 9 * * 1\"",
            "every: 2x",
            "todo.yaml:18:12: spec.schedule.every: interval \"2x\": unknown unit; write a whole number and one of s, m, h, d, w, mo, y, as in 30s, 5m, 2h, 1d, 2w, 1mo, 1y",
        ),
        (
            "Europe/Berlin",
            "Europe/Berln",
            "todo.yaml:19:13: spec.timeZone: unknown time zone \"Europe/Berln\"; use an IANA name such as Europe/Berlin or UTC",
        ),
        (
            "  user: alice",
            "  user: alice\n  start: \"2026-02-30\"",
            "todo.yaml:17:10: spec.start: \"2026-02-30\" is no day; write a date (2026-01-31) or a date and time without an offset (2026-01-31T09:00), in the schedule's time zone",
        ),
        (
            "{{date}}",
            "{{data}}",
            "todo.yaml:21:12: spec.template.title: unknown placeholder \"{{data}}\"; placeholders are {{date}}, {{date:%B %Y}}, {{time}}, {{weekday}}, {{week}}, {{n}}",
        ),
        (
            "{{date}}",
            "{{date:%!}}",
            "todo.yaml:21:12: spec.template.title: \"%!\" is not a date pattern (strftime formatting failed: found unrecognized specifier directive `!`); patterns are made of codes such as %Y %m %d %B %A %H %M",
        ),
        (
            "dueIn: 8h",
            "dueIn: 8 hours",
            "todo.yaml:22:12: spec.template.dueIn: \"8 hours\" has the wrong form; allowed: one number and one of the units s, m, h, d, w, such as 90s, 30m, 8h, 2d or 1w",
        ),
        (
            "{replicas: 1}",
            "{resources: {requests: {memory: 64MB}}}",
            "todo.yaml:8:40: spec.api.resources.requests.memory: \"64MB\" is not an amount; allowed: a Kubernetes quantity such as 100m, 2, 64Mi or 10Gi",
        ),
        (
            "{replicas: 1}",
            "{ingress: {host: \"https://todo.example.com\"}}",
            "todo.yaml:8:25: spec.api.ingress.host: \"https://todo.example.com\" is not a host name; allowed: a DNS name such as todo.example.com",
        ),
        (
            "{replicas: 1}",
            "{httpRoute: {host: \"todo example\", parentRefs: [{name: web}]}}",
            "todo.yaml:8:27: spec.api.httpRoute.host: \"todo example\" is not a host name; allowed: a DNS name such as todo.example.com",
        ),
        (
            "  paused: false",
            "  auth: {oidc: {issuer: \"http://id.example.com\", audience: todo}}",
            "todo.yaml:7:25: spec.auth.oidc.issuer: \"http://id.example.com\" cannot be trusted as an issuer; allowed: an https:// URL without query and fragment (http:// within a cluster or on this machine)",
        ),
        (
            "  paused: false",
            "  upgrade: {maintenanceWindow: {cron: \"0 2 * * 8\", duration: 4h}}",
            "todo.yaml:7:39: spec.upgrade.maintenanceWindow.cron: weekday field \"8\": 8 is out of range; allowed are 0-7 (0 and 7 are Sunday) or SUN-SAT, lists, ranges, steps, *, ?, dL, d#1 to d#5",
        ),
        (
            "    title: \"Weekly review {{date}}\"",
            "    title: \"a\\nb\"",
            "todo.yaml:21:12: spec.template.title: \"a\\nb\" is not a title; allowed: 1 to 500 characters, not blank, on one line",
        ),
        (
            "    tags: [review]",
            "    tags: [Review, review]",
            "todo.yaml:23:20: spec.template.tags[1]: \"review\" is there twice; keep one of them",
        ),
        (
            "    tags: [review]",
            "    category: \" \"",
            "todo.yaml:23:15: spec.template.category: \" \" is not a category; allowed: 1 to 100 characters, not blank, on one line",
        ),
        // Documents together
        (
            "platformRef: {name: home}",
            "platformRef: {name: work}",
            "todo.yaml:15:23: spec.platformRef.name: there is no platform \"work\" in the manifest; allowed: home",
        ),
        (
            "  name: weekly-review",
            "  name: weekly-review\n  namespace: todo",
            "todo.yaml:14:14: metadata.namespace: the schedule must be in its platform's namespace; allowed: default",
        ),
    ];
    let mut surprises = Vec::new();
    for (from, to, expected) in cases {
        let found = broken(from, to);
        assert!(found.iter().all(|line| !line.contains('\n')), "{found:?}");
        if found != [*expected] {
            surprises.push(format!(
                "{from:?} -> {to:?}\n  expected {expected}\n  found    {}",
                found.join("\n           ")
            ));
        }
    }
    assert!(surprises.is_empty(), "\n{}", surprises.join("\n"));
}

#[test]
fn two_platforms_and_two_schedules_of_one_name_are_refused_with_both_places() {
    let (platform, schedule) = GOOD.split_once("---\n").unwrap();
    let found = load(&[
        ("a.yaml", platform),
        ("b.yaml", platform),
        ("c.yaml", schedule),
        ("d.yaml", schedule),
    ])
    .unwrap_err();
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "b.yaml:4:9: metadata.name: a second TodoPlatform; allowed: one, and a.yaml:4 has it",
            "d.yaml:4:9: metadata.name: a second RecurringSchedule with the name \"weekly-review\"; allowed: one, and c.yaml:4 has it",
        ]
    );
}

#[test]
fn every_mistake_of_a_manifest_is_reported_at_once_in_the_order_of_its_lines() {
    let text = GOOD
        .replace("  paused: false", "  pausd: false")
        .replace("{replicas: 1}", "{replicas: 0}")
        .replace("Europe/Berlin", "Europe/Berln")
        .replace("{{date}}", "{{data}}");
    let places: Vec<_> = load(&[("todo.yaml", text)])
        .unwrap_err()
        .into_iter()
        .map(|error| (error.line, error.field))
        .collect();
    let expected = [
        (7, "spec.pausd"),
        (8, "spec.api.replicas"),
        (19, "spec.timeZone"),
        (21, "spec.template.title"),
    ];
    assert_eq!(places, expected.map(|(line, field)| (line, field.to_owned())));
}

#[test]
fn a_manifest_without_a_platform_is_refused() {
    let schedule = GOOD.split_once("---\n").unwrap().1;
    let expected = "todo.yaml:1:1: no TodoPlatform in the manifest; add a document with kind: TodoPlatform";
    assert_eq!(errors(schedule), [expected]);
    assert_eq!(errors(""), [expected]);
    assert_eq!(errors("# nothing\n---\n"), [expected]);
    // One that is there and broken is not missing.
    assert_eq!(broken("  paused: false", "  pausd: false").len(), 1);
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let text = format!("# {}\n{GOOD}", "x".repeat(MAX_FILE_BYTES));
    let found = errors(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("todo.yaml:1:1: the file has 1049"), "{found:?}");
    assert!(found[0].ends_with("bytes; allowed: 1048576"), "{found:?}");
}

#[test]
fn what_a_cluster_prints_loads_again() {
    let text = GOOD
        .replace("  name: home\n", "  name: home\n  uid: 0b6c7a44-9a5e-4f0e-8f4e-3f1f6f6a1c11\n  resourceVersion: \"12\"\n  generation: 3\n  creationTimestamp: \"2026-11-20T09:00:00Z\"\n  managedFields: [{manager: kubectl}]\n  labels: {example.com/team: home}\n")
        .replace("  api: {replicas: 1}", "  api: {replicas: 1, autoscaling: null}\nstatus:\n  phase: Upgrading\n  observedGeneration: 3\n");
    assert_eq!(errors(&text), [] as [&str; 0]);
    let wrong = text.replace("example.com/team: home", "example.com/team: 7");
    assert_eq!(
        errors(&wrong),
        [
            "todo.yaml:10:30: metadata.labels[example.com/team]: the number 7 does not belong here; allowed: a string: put it in quotes"
        ]
    );
}

#[test]
fn line_ends_and_a_byte_order_mark_change_no_line() {
    let text = GOOD.replace("  paused: false", "  pausd: false");
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(errors(&windows), errors(&text));
    assert_eq!(
        errors(&format!("\u{feff}{}", GOOD.replace('\n', "\r\n"))),
        [] as [&str; 0]
    );
}

#[test]
fn a_field_without_a_value_is_an_absent_field() {
    assert_eq!(
        broken("  paused: false", "  kafka:\n  database:\n  paused: ~"),
        [] as [&str; 0]
    );
    assert_eq!(
        broken("  user: alice", "  user:"),
        [
            "todo.yaml:16:3: spec.user: missing; it is required: Whose tasks these are: the `sub` of that person's tokens"
        ]
    );
    assert_eq!(
        broken("      - before: 30m", "      -"),
        ["todo.yaml:25:8: spec.template.reminders[0]: nothing does not belong here; allowed: the fields before"]
    );
}
