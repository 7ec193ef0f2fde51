//! The Dapr sidecar of a process: whether events go through it, and where it is.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};
use sqlx::PgPool;
use todo_dapr::{BusSettings, Client, DaprBus, Secret, SubscriptionHost, SubscriptionSettings};
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

/// The sidecar's settings. Those of Dapr have Dapr's names.
#[derive(Args, Debug)]
pub(crate) struct SidecarArgs {
    /// How events get to their consumers: within the process, or through the Dapr sidecar
    #[arg(long, env = "TODO_BUS", default_value = "local")]
    pub(crate) bus: Bus,

    /// The name of Dapr's pub/sub component
    #[arg(long, env = "TODO_PUBSUB", value_name = "NAME", default_value = "pubsub")]
    pub(crate) pubsub: String,

    /// Where the sidecar is [default: on this machine]
    #[arg(long, env = "DAPR_HTTP_ENDPOINT", value_name = "URL")]
    dapr_http_endpoint: Option<String>,

    /// The sidecar's port on this machine [default: 3500]
    #[arg(long, env = "DAPR_HTTP_PORT", value_name = "PORT")]
    dapr_http_port: Option<String>,

    /// What the sidecar wants to be shown
    #[arg(long, env = "DAPR_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    dapr_api_token: Option<String>,

    /// What the sidecar shows when it calls this process
    #[arg(long, env = "APP_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    app_api_token: Option<String>,
}

impl SidecarArgs {
    /// A client of the sidecar, whether events go through it or not.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(self.settings()?).map_err(Refused::because)
    }

    /// Where the sidecar is and what it wants to be shown, for a client with patience of its own.
    pub(crate) fn settings(&self) -> Result<todo_dapr::Settings> {
        todo_dapr::Settings::from_variables(|name| match name {
            "DAPR_HTTP_ENDPOINT" => self.dapr_http_endpoint.clone(),
            "DAPR_HTTP_PORT" => self.dapr_http_port.clone(),
            "DAPR_API_TOKEN" => self.dapr_api_token.clone(),
            _ => None,
        })
        .map_err(Refused::because)
    }

    /// Refuses to let anyone on the network act as the sidecar.
    pub(crate) fn require_guard(&self, listen: SocketAddr) -> Result<()> {
        if self.bus == Bus::Local || listen.ip().is_loopback() || self.shown_token().is_some() {
            return Ok(());
        }
        Err(Refused::because(format_args!(
            "--listen {listen} can be reached from other machines, and who reaches it could deliver events: set \
             APP_API_TOKEN here and for the sidecar, or listen on 127.0.0.1"
        )))
    }

    /// What carries events, and the routes for what the sidecar delivers to `consumer`.
    pub(crate) fn carrier(&self, client: &Client) -> Carrier {
        match self.bus {
            Bus::Local => Carrier::Local,
            Bus::Dapr => Carrier::Broker(Arc::new(DaprBus::new(client.clone(), BusSettings::of(&self.pubsub)))),
        }
    }

    /// Serves what the sidecar delivers to a consumer.
    pub(crate) fn host(
        &self,
        pool: PgPool,
        consumer: Arc<dyn Consumer>,
        retry: Retry,
        client: Client,
    ) -> SubscriptionHost {
        let settings = SubscriptionSettings {
            token: self.app_token(),
            ..SubscriptionSettings::of(&self.pubsub)
        };
        SubscriptionHost::new(pool, consumer, retry, client, settings)
    }

    /// What the sidecar shows when it calls this process.
    pub(crate) fn app_token(&self) -> Option<Secret> {
        self.shown_token().map(Secret::new)
    }

    fn shown_token(&self) -> Option<&str> {
        self.app_api_token.as_deref().filter(|token| !token.is_empty())
    }
}
