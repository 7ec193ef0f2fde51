//! The Dapr sidecar of a process: where it is, and what goes through it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};
use sqlx::PgPool;
use todo_dapr::{BusSettings, Client, DaprBus, Secret, SubscriptionHost, SubscriptionSettings, TopicPrefix};
use todo_events::Consumer;
use todo_events::host::Retry;
use todo_worker::Carrier;

use crate::failure::Refused;

/// How events get from the outbox to the consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bus {
    /// Within each process that runs the role relay.
    Local,
    /// Through the pub/sub of the Dapr sidecar.
    Dapr,
}

/// Who tells the sidecar what to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subscriptions {
    /// Manifests beside the sidecar's components.
    Declared,
    /// This process, when the sidecar asks at its start.
    Announced,
}

/// Where the sidecar is. Dapr's own names.
#[derive(Args, Debug)]
pub(crate) struct SidecarArgs {
    /// Where the Dapr sidecar is [default: on this machine]
    #[arg(long = "dapr-http-endpoint", env = "DAPR_HTTP_ENDPOINT", value_name = "URL")]
    http_endpoint: Option<String>,

    /// The Dapr sidecar's port on this machine [default: 3500]
    #[arg(long = "dapr-http-port", env = "DAPR_HTTP_PORT", value_name = "PORT")]
    http_port: Option<String>,

    /// What the Dapr sidecar wants to be shown
    #[arg(
        long = "dapr-api-token",
        env = "DAPR_API_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    api_token: Option<String>,
}

impl SidecarArgs {
    /// A client of the sidecar.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(self.settings()?).map_err(Refused::because)
    }

    /// Where the sidecar is and what it wants to be shown, for a client with patience of its own.
    pub(crate) fn settings(&self) -> Result<todo_dapr::Settings> {
        todo_dapr::Settings::from_variables(|name| match name {
            "DAPR_HTTP_ENDPOINT" => self.http_endpoint.clone(),
            "DAPR_HTTP_PORT" => self.http_port.clone(),
            "DAPR_API_TOKEN" => self.api_token.clone(),
            _ => None,
        })
        .map_err(Refused::because)
    }
}

/// What of a worker's work goes through the sidecar.
#[derive(Args, Debug)]
pub(crate) struct BusArgs {
    /// How events get to their consumers: within the process, or through the Dapr sidecar
    #[arg(long, env = "TODO_BUS", default_value = "local")]
    pub(crate) bus: Bus,

    /// The name of Dapr's pub/sub component
    #[arg(long, env = "TODO_PUBSUB", value_name = "NAME", default_value = "pubsub")]
    pubsub: String,

    /// What the names of this platform's topics begin with, where platforms share a broker; the same for all its
    /// processes
    #[arg(long, env = "TODO_TOPIC_PREFIX", value_name = "PREFIX", default_value = "")]
    topic_prefix: TopicPrefix,

    /// Who tells the Dapr sidecar which topics this process consumes: manifests, or the process itself
    #[arg(long, env = "TODO_SUBSCRIPTIONS", default_value = "declared")]
    subscriptions: Subscriptions,

    /// Have a scheduler of Dapr wake the role reminders [default: true with --bus dapr, else false]
    ///
    /// Reminders go out without it, too: it only saves a moment.
    #[arg(long, env = "TODO_ALARMS", value_name = "true|false")]
    alarms: Option<bool>,

    /// What the Dapr sidecar shows when it calls this process
    #[arg(long, env = "APP_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    app_api_token: Option<String>,
}

impl BusArgs {
    /// Whether the sidecar is asked to wake the role reminders.
    pub(crate) fn has_alarms(&self) -> bool {
        self.alarms.unwrap_or(self.bus == Bus::Dapr)
    }

    /// Refuses to let anyone on the network act as the sidecar.
    pub(crate) fn require_guard(&self, listen: SocketAddr) -> Result<()> {
        let is_called = self.bus == Bus::Dapr || self.has_alarms();
        if !is_called || listen.ip().is_loopback() || self.app_token().is_some() {
            return Ok(());
        }
        Err(Refused::because(format_args!(
            "--listen {listen} can be reached from other machines, and who reaches it could deliver events: set \
             APP_API_TOKEN here and for the sidecar, or listen on 127.0.0.1"
        )))
    }

    /// What carries events.
    pub(crate) fn carrier(&self, client: &Client) -> Carrier {
        match self.bus {
            Bus::Local => Carrier::Local,
            Bus::Dapr => {
                let settings = BusSettings {
                    topic_prefix: self.topic_prefix.clone(),
                    ..BusSettings::of(&self.pubsub)
                };
                Carrier::Broker(Arc::new(DaprBus::new(client.clone(), settings)))
            }
        }
    }

    /// Serves what the sidecar delivers to a consumer.
    pub(crate) fn subscription_host(
        &self,
        pool: PgPool,
        consumer: Arc<dyn Consumer>,
        retry: Retry,
        client: Client,
    ) -> SubscriptionHost {
        let settings = SubscriptionSettings {
            token: self.app_token(),
            announce: self.subscriptions == Subscriptions::Announced,
            topic_prefix: self.topic_prefix.clone(),
            ..SubscriptionSettings::of(&self.pubsub)
        };
        SubscriptionHost::new(pool, consumer, retry, client, settings)
    }

    /// What the sidecar shows when it calls this process.
    pub(crate) fn app_token(&self) -> Option<Secret> {
        let token = self.app_api_token.as_deref();
        token.filter(|token| !token.is_empty()).map(Secret::new)
    }
}
