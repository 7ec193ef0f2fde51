//! The services that a platform uses besides its database and Kafka: Dapr's building blocks, mail and push.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, SecretRef};

/// A mail address, roughly: the mail server decides.
pub(crate) const ADDRESS_PATTERN: &str = r"^[^@\s]+@[^@\s]+$";

/// The Dapr sidecar's building blocks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DaprSpec {
    /// The state store behind Dapr's state API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub state_store: Option<StateStore>,

    /// Traces of what passes through the sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub tracing: Option<Tracing>,
}

/// The state store behind Dapr's state API: exactly one of the two.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.redis) != has(self.postgresql)")
    .message("give exactly one of redis, postgresql"))]
pub struct StateStore {
    /// A Redis that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub redis: Option<RedisStore>,

    /// The platform's own database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub postgresql: Option<PostgresqlStore>,
}

/// A Redis that exists.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RedisStore {
    /// The Secret's key that holds "host:port".
    pub host_secret_ref: SecretKeyRef,

    /// The Secret's key that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub password_secret_ref: Option<SecretKeyRef>,
}

/// The platform's own database as the state store. It has no fields yet.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct PostgresqlStore {}

/// Where traces go.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// "host:port" of an OTLP collector that speaks gRPC.
    #[schemars(length(min = 1, max = 253))]
    pub otlp_endpoint: String,
}

/// How people are reached beyond the feed inside the API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NotificationsSpec {
    /// Push messages to browsers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub web_push: Option<WebPush>,

    /// Mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub email: Option<Email>,
}

/// Push messages to browsers (RFC 8030, VAPID RFC 8292).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WebPush {
    /// The Secret with the keys `private` and `public` of the VAPID pair, and `subject`.
    pub vapid_secret_ref: SecretRef,
}

/// Mail.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Email {
    /// The server that takes it.
    pub smtp: Smtp,
}

/// The server that takes mail.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Smtp {
    /// The Secret's key that holds the URL: `smtp://user:password@host:587`, or `smtps://…`
    pub url_secret_ref: SecretKeyRef,

    /// The sender's address.
    #[schemars(length(min = 3, max = 320), regex(pattern = ADDRESS_PATTERN))]
    pub from: String,
}
