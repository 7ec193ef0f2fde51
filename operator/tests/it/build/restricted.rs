//! The `restricted` profile of Kubernetes' Pod Security Standards, as its list of controls has it, for pods on Linux.

use serde_json::{Value, json};

/// The kinds of volumes that the profile allows.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
];

/// What of a pod's spec the profile forbids; empty when it may run where the profile is enforced.
pub(super) fn violations(pod: &Value) -> Vec<String> {
    let mut found = vec![];
    let mut forbid = |is_forbidden: bool, what: String| {
        if is_forbidden {
            found.push(what);
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        forbid(pod[field] == true, field.to_owned());
    }
    for volume in items(&pod["volumes"]) {
        for kind in volume.as_object().unwrap().keys().filter(|kind| *kind != "name") {
            forbid(!VOLUMES.contains(&kind.as_str()), format!("volume of kind {kind}"));
        }
    }
    let whole = &pod["securityContext"];
    forbid(whole["runAsUser"] == 0, "runAsUser 0".to_owned());
    for sysctl in items(&whole["sysctls"]) {
        forbid(true, format!("sysctl {}", sysctl["name"]));
    }
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    for container in lists.into_iter().flat_map(|list| items(&pod[list])) {
        let name = container["name"].as_str().unwrap();
        let own = &container["securityContext"];
        // The container's word comes before the pod's.
        let effective = |field: &str| {
            if own[field].is_null() {
                &whole[field]
            } else {
                &own[field]
            }
        };
        let mut forbid = |is_forbidden: bool, what: &str| forbid(is_forbidden, format!("{name}: {what}"));
        forbid(effective("runAsNonRoot") != true, "runAsNonRoot is not true");
        forbid(effective("runAsUser") == 0, "runAsUser 0");
        let seccomp = &effective("seccompProfile")["type"];
        forbid(seccomp != "RuntimeDefault" && seccomp != "Localhost", "seccompProfile");
        forbid(own["privileged"] == true, "privileged");
        forbid(
            own["allowPrivilegeEscalation"] != false,
            "allowPrivilegeEscalation is not false",
        );
        let dropped = items(&own["capabilities"]["drop"]);
        forbid(!dropped.contains(&&json!("ALL")), "capabilities are not dropped");
        let added = items(&own["capabilities"]["add"]);
        forbid(
            added.iter().any(|added| **added != "NET_BIND_SERVICE"),
            "capabilities are added",
        );
        forbid(
            !matches!(own["procMount"].as_str(), None | Some("Default")),
            "procMount",
        );
        forbid(
            !matches!(
                effective("seLinuxOptions")["type"].as_str(),
                None | Some("" | "container_t" | "container_init_t" | "container_kvm_t" | "container_engine_t")
            ),
            "seLinuxOptions",
        );
        forbid(effective("appArmorProfile")["type"] == "Unconfined", "appArmorProfile");
        for port in items(&container["ports"]) {
            forbid(!matches!(port["hostPort"].as_u64(), None | Some(0)), "hostPort");
        }
        let handlers = [
            "/livenessProbe",
            "/readinessProbe",
            "/startupProbe",
            "/lifecycle/preStop",
            "/lifecycle/postStart",
        ];
        for handler in handlers.into_iter().filter_map(|handler| container.pointer(handler)) {
            for action in ["httpGet", "tcpSocket"] {
                forbid(!handler[action]["host"].is_null(), "a probe of another host");
            }
        }
    }
    found
}

fn items(list: &Value) -> Vec<&Value> {
    list.as_array().into_iter().flatten().collect()
}

#[test]
fn the_checker_sees_each_violation() {
    let good = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "a", "emptyDir": {}}],
        "containers": [{
            "name": "a",
            "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"path": "/"}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    });
    assert_eq!(violations(&good), Vec::<String>::new());
    let container = "/containers/0";
    let own = "/containers/0/securityContext";
    let changes = [
        ("", "hostNetwork", json!(true)),
        ("", "hostPID", json!(true)),
        ("", "hostIPC", json!(true)),
        ("", "volumes", json!([{"name": "a", "hostPath": {"path": "/"}}])),
        ("/securityContext", "runAsNonRoot", json!(false)),
        ("/securityContext", "runAsUser", json!(0)),
        ("/securityContext", "seccompProfile", json!({"type": "Unconfined"})),
        ("/securityContext", "sysctls", json!([{"name": "a", "value": "1"}])),
        (container, "ports", json!([{"containerPort": 80, "hostPort": 80}])),
        (
            container,
            "livenessProbe",
            json!({"tcpSocket": {"host": "1.2.3.4", "port": 1}}),
        ),
        (own, "runAsNonRoot", json!(false)),
        (own, "runAsUser", json!(0)),
        (own, "privileged", json!(true)),
        (own, "allowPrivilegeEscalation", Value::Null),
        (own, "capabilities", json!({"drop": ["NET_RAW"]})),
        (own, "capabilities", json!({"drop": ["ALL"], "add": ["SYS_TIME"]})),
        (own, "procMount", json!("Unmasked")),
        (own, "seLinuxOptions", json!({"type": "spc_t"})),
        (own, "seccompProfile", json!({"type": "Unconfined"})),
        (own, "appArmorProfile", json!({"type": "Unconfined"})),
    ];
    for (place, field, value) in changes {
        let mut bad = good.clone();
        bad.pointer_mut(place).unwrap()[field] = value;
        assert!(!violations(&bad).is_empty(), "{place}/{field}");
    }
}
