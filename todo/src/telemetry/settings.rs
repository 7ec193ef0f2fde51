//! Which traces are recorded, and where they are sent.
//!
//! The names are OpenTelemetry's own
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). The SDK itself reads more of
//! them, from the environment only: `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*`, `OTEL_EXPORTER_OTLP_HEADERS`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use reqwest::Url;

use crate::failure::Refused;

/// Traces, for a process that serves.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TraceArgs {
    /// The OpenTelemetry collector that gets traces, over HTTP: its address, on port 4318 as a rule [default: no
    /// traces]
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        hide_env_values = true
    )]
    otlp_endpoint: Option<String>,

    /// What is spoken with it: http/protobuf and nothing else
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", value_name = "NAME")]
    otlp_protocol: Option<String>,

    /// How this process is called in traces [default: todo-api, todo-serve, todo-relay and so on; todo for todo up]
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    trace_service: Option<String>,

    /// Which of the traces that begin here are recorded; a caller's trace is recorded when the caller says so
    #[arg(long, env = "OTEL_TRACES_SAMPLER", default_value = "parentbased_always_on")]
    trace_sampler: Sampler,

    /// How many of them, from 0 to 1, when the sampler goes by a ratio
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "PART")]
    trace_sampler_arg: Option<String>,
}

/// A caller's decision comes first, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Sampler {
    /// All of them
    #[default]
    #[value(name = "parentbased_always_on")]
    AlwaysOn,
    /// None of them
    #[value(name = "parentbased_always_off")]
    AlwaysOff,
    /// Some of them
    #[value(name = "parentbased_traceidratio")]
    Ratio,
}

/// Traces that are on.
#[derive(Debug, PartialEq)]
pub(super) struct TraceSettings {
    /// Where batches are posted.
    pub(super) endpoint: Url,
    /// The process's name, if it was given.
    pub(super) service: Option<String>,
    /// How many of the traces that begin here are recorded, from 0 to 1.
    pub(super) sampled_part: f64,
}

impl TraceSettings {
    /// Reads the settings; `None` when traces are off. A wrong one is refused with its name.
    pub(super) fn read(args: &TraceArgs) -> Result<Option<Self>> {
        let Some(endpoint) = given(args.otlp_endpoint.as_deref()) else {
            return Ok(None);
        };
        if let Some(protocol) = given(args.otlp_protocol.as_deref()).filter(|protocol| *protocol != "http/protobuf") {
            return Err(Refused::because(format_args!(
                "OTEL_EXPORTER_OTLP_PROTOCOL (--otlp-protocol) is {protocol:?}; only http/protobuf is spoken here (a \
                 collector's port 4318 takes it)"
            )));
        }
        Ok(Some(Self {
            endpoint: traces_of(endpoint)?,
            service: given(args.trace_service.as_deref()).map(str::to_owned),
            sampled_part: sampled_part(args)?,
        }))
    }
}

/// One that is empty is none: OpenTelemetry's rule for its variables.
fn given(setting: Option<&str>) -> Option<&str> {
    setting.filter(|value| !value.is_empty())
}

/// The path for traces under the collector's address.
fn traces_of(endpoint: &str) -> Result<Url> {
    let url = endpoint.parse::<Url>().ok();
    let Some(mut url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some()) else {
        // Without what was given: it may hold a password.
        return Err(Refused::because(
            "OTEL_EXPORTER_OTLP_ENDPOINT (--otlp-endpoint) is not a URL such as http://collector:4318",
        ));
    };
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn sampled_part(args: &TraceArgs) -> Result<f64> {
    match (args.trace_sampler, given(args.trace_sampler_arg.as_deref())) {
        (Sampler::AlwaysOn, _) | (Sampler::Ratio, None) => Ok(1.0),
        (Sampler::AlwaysOff, _) => Ok(0.0),
        (Sampler::Ratio, Some(part)) => {
            let parsed = part.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
            parsed.ok_or_else(|| {
                Refused::because(format_args!(
                    "OTEL_TRACES_SAMPLER_ARG (--trace-sampler-arg) is {part:?}; give a number from 0 to 1"
                ))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(endpoint: &str) -> TraceArgs {
        TraceArgs {
            otlp_endpoint: Some(endpoint.to_owned()),
            ..TraceArgs::default()
        }
    }

    fn read(args: &TraceArgs) -> Option<TraceSettings> {
        TraceSettings::read(args).expect("settings that can be read")
    }

    fn refused(args: &TraceArgs) -> String {
        TraceSettings::read(args).expect_err("a wrong setting").to_string()
    }

    #[test]
    fn traces_are_off_until_an_endpoint_is_given() {
        assert_eq!(read(&TraceArgs::default()), None);
        assert_eq!(read(&on("")), None);
        for (endpoint, posted_to) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://collector/tenant/", "https://collector/tenant/v1/traces"),
        ] {
            let settings = read(&on(endpoint)).expect("an endpoint");
            assert_eq!(settings.endpoint.as_str(), posted_to);
        }
    }

    #[test]
    fn a_wrong_setting_is_refused_with_its_name_and_without_its_secrets() {
        for wrong in ["collector", "ftp://user:hunter2@collector", "http://"] {
            let refused = refused(&on(wrong));
            assert!(
                refused.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !refused.contains("hunter2"),
                "{refused}"
            );
        }
        let grpc = TraceArgs {
            otlp_protocol: Some("grpc".to_owned()),
            ..on("http://collector:4317")
        };
        assert!(refused(&grpc).contains("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let too_much = TraceArgs {
            trace_sampler: Sampler::Ratio,
            trace_sampler_arg: Some("2".to_owned()),
            ..on("http://collector:4318")
        };
        assert!(refused(&too_much).contains("OTEL_TRACES_SAMPLER_ARG"));
    }

    #[test]
    fn a_part_of_the_traces_can_be_asked_for() {
        for (trace_sampler, arg, part) in [
            (Sampler::AlwaysOn, None, 1.0),
            (Sampler::AlwaysOff, None, 0.0),
            (Sampler::Ratio, Some("0.25"), 0.25),
            (Sampler::Ratio, None, 1.0),
        ] {
            let args = TraceArgs {
                trace_sampler,
                trace_sampler_arg: arg.map(str::to_owned),
                ..on("http://collector:4318")
            };
            let found = read(&args).expect("an endpoint").sampled_part;
            assert!((found - part).abs() < 1e-9, "{found}");
        }
    }
}
