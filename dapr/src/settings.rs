//! Where the sidecar is and how patient its client is.

use std::time::Duration;

use todo_events::backoff::Backoff;
use url::Url;

use crate::{Error, Secret};

const ENDPOINT: &str = "DAPR_HTTP_ENDPOINT";
const PORT: &str = "DAPR_HTTP_PORT";
const TOKEN: &str = "DAPR_API_TOKEN";

/// The sidecar's own default.
const DEFAULT_PORT: u16 = 3500;

/// How the client finds and treats the sidecar.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its HTTP API is, without the version: `http://127.0.0.1:3500`.
    pub address: Url,
    /// What it asks for in `dapr-api-token`.
    pub token: Option<Secret>,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for the answer to one attempt.
    pub timeout: Duration,
    /// The same for publishing, where the sidecar waits for the broker and tries again by itself.
    pub publish_timeout: Duration,
    /// How often a call is made where that is safe. At least 1.
    pub attempts: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
}

impl Settings {
    /// The defaults for a sidecar at this address.
    pub fn at(address: Url) -> Self {
        Self {
            address,
            token: None,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            publish_timeout: Duration::from_secs(30),
            attempts: 3,
            backoff: Backoff {
                first: Duration::from_millis(50),
                max: Duration::from_secs(1),
            },
        }
    }

    /// From `DAPR_HTTP_ENDPOINT`, else `DAPR_HTTP_PORT` on this machine, and `DAPR_API_TOKEN`: what Dapr's
    /// injector and its SDKs use.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same from other variables than the environment's. An empty one counts as not set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let address = if let Some(endpoint) = variable(ENDPOINT) {
            Url::parse(&endpoint)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .ok_or_else(|| Error::Setting {
                    name: ENDPOINT,
                    problem: "is not an http or https URL".to_owned(),
                })?
        } else {
            let port = variable(PORT).map_or(Ok(DEFAULT_PORT), |port| port.parse());
            on_this_machine(port.map_err(|_| Error::Setting {
                name: PORT,
                problem: "is not a port number".to_owned(),
            })?)
        };
        Ok(Self {
            token: variable(TOKEN).map(Secret::new),
            ..Self::at(address)
        })
    }
}

/// The address and not `localhost`, which may resolve to one that the sidecar does not listen on.
fn on_this_machine(port: u16) -> Url {
    Url::parse(&format!("http://127.0.0.1:{port}")).expect("an address and a port are a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_variables(|name| {
            let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn the_sidecar_is_where_daprs_variables_say() {
        for (variables, address) in [
            (vec![], "http://127.0.0.1:3500/"),
            (vec![(PORT, "3600")], "http://127.0.0.1:3600/"),
            (
                vec![(ENDPOINT, "https://dapr.example:443/"), (PORT, "3600")],
                "https://dapr.example/",
            ),
            (vec![(ENDPOINT, ""), (PORT, "")], "http://127.0.0.1:3500/"),
        ] {
            let settings = read(&variables).expect("settings");
            assert_eq!(settings.address.as_str(), address);
            assert_eq!(settings.token, None);
        }
    }

    #[test]
    fn a_wrong_variable_is_refused_by_its_name() {
        for variable in [
            (ENDPOINT, "not a url"),
            (ENDPOINT, "ftp://127.0.0.1"),
            (PORT, "70000"),
            (PORT, "http"),
        ] {
            let error = read(&[variable]).expect_err("a wrong value").to_string();
            assert!(error.starts_with(variable.0), "{error}");
        }
    }

    #[test]
    fn the_token_is_read_and_never_shown() {
        let settings = read(&[(TOKEN, "hunter2")]).expect("settings");
        assert_eq!(settings.token.as_ref().map(Secret::expose), Some("hunter2"));
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
