//! The settings file: `NAME=value` lines, the same names as a process' environment, for every process of the platform.
//!
//! Only what the manifest says, and where the pods find their secrets. A name that the version of a process does not
//! know would keep it from starting, so what has a default there and none here is left out.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::ConfigMap;
use todo_crds::{AuthSettings, LogFormat};

use super::draft::{Draft, fingerprint};
use super::pod;
use crate::child::{Child, Kind};
use crate::names::Component;

/// The file in the ConfigMap.
pub(super) const FILE: &str = "todo.env";

/// The fewest database connections that the processes of a platform start with: a worker wants 8, one with the API 10.
pub(crate) fn least_connections(draft: &Draft) -> u32 {
    if draft.is_spread() { 8 } else { 10 }
}

/// Who reads a setting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// Every process.
    Each,
    /// What answers requests.
    Api,
    /// What runs a role.
    Worker,
}

struct Setting {
    name: &'static str,
    value: String,
    reader: Reader,
}

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let mut file = String::from("# What the TodoPlatform says, for its processes. Changes here are taken back.\n");
    for setting in settings(draft) {
        writeln!(file, "{}={}", setting.name, setting.value).expect("a string takes everything");
    }
    let map = ConfigMap {
        data: Some([(FILE.to_owned(), file)].into()),
        ..ConfigMap::default()
    };
    vec![
        draft
            .object(Kind::ConfigMap, draft.names.settings())
            .component("settings")
            .content(&map),
    ]
}

/// Changes when a setting changes that processes of this component read. They read them at their start only.
pub(super) fn hash(draft: &Draft, component: Component) -> String {
    let serves = draft.serves(component);
    let works = !draft.roles(component).is_empty();
    let read: Vec<(&str, String)> = settings(draft)
        .into_iter()
        .filter(|setting| match setting.reader {
            Reader::Each => true,
            Reader::Api => serves,
            Reader::Worker => works,
        })
        .map(|setting| (setting.name, setting.value))
        .collect();
    fingerprint(&read)
}

fn settings(draft: &Draft) -> Vec<Setting> {
    use Reader::{Api, Each, Worker};

    let means = todo_crds::Settings::from_platform(&draft.inputs.platform);
    let mut settings = vec![];
    let mut set = |reader, name, value: String| settings.push(Setting { name, value, reader });

    set(Each, "TODO_LISTEN", format!("0.0.0.0:{}", pod::PORT));
    set(Each, "DATABASE_URL_FILE", pod::secret_file(pod::DATABASE_URL));
    let connections = means.database_max_connections.max(least_connections(draft));
    set(Each, "TODO_DATABASE_CONNECTIONS", connections.to_string());
    if let Some(format) = means.log_format {
        let format = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        set(Each, "TODO_LOG_FORMAT", format.to_owned());
    }
    match means.auth {
        AuthSettings::Oidc { issuer, audience } => {
            set(Api, "TODO_OIDC_ISSUER", issuer);
            set(Api, "TODO_OIDC_AUDIENCE", audience);
        }
        AuthSettings::Hs256 { .. } => set(Api, "TODO_TOKEN_SECRET_FILE", pod::secret_file(pod::TOKEN_SECRET)),
    }
    set(Api, "TODO_INTERNAL_KEY_FILE", pod::secret_file(pod::INTERNAL_KEY));
    set(Api, "TODO_MAX_PAGE_SIZE", means.api.max_page_size.to_string());
    set(Api, "TODO_MAX_BODY_BYTES", means.api.max_body_bytes.to_string());
    set(Api, "TODO_RATE_PER_SECOND", means.api.rate_per_second.to_string());
    set(Api, "TODO_RATE_BURST", means.api.rate_burst.to_string());
    if super::dapr::state_store(draft).is_some() {
        set(Api, "TODO_STATE_STORE", draft.names.state());
    }
    if draft.is_spread() {
        set(Each, "TODO_BUS", "dapr".to_owned());
        set(Worker, "TODO_PUBSUB", draft.names.pubsub());
        set(Worker, "TODO_TOPIC_PREFIX", draft.names.topic_prefix());
    }
    settings
}
