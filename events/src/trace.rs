//! Which trace a piece of work belongs to, from the request to the last of its effects.
//!
//! What lives here: a span's ids, their wire form `traceparent` (W3C Trace Context, version 00), and [`traced!`], which
//! opens a [`tracing`] span that carries them as fields. What does not: how ids look in a log line and where finished
//! spans go. Both are the subscriber's, and so the process's.
//!
//! The path of a trace: a request continues its caller's or begins one; its own `traceparent` goes into the outbox row;
//! the relay and then each consumer continue from there, and what a consumer causes carries its consumer's. A
//! `traceparent` travels as text in values that exist anyway ([`crate::Event::traceparent`]), never in a hidden global.
//!
//! Ids are made and logged in every process. Whether spans are also recorded is [`record`]'s choice: until it is called
//! no new trace is marked as sampled, and the spans that only a recording needs are not opened.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of the header and of the CloudEvents attribute that carry it.
pub const TRACEPARENT: &str = "traceparent";

/// New traces whose id's lower 56 bits, the random ones, are below this are recorded.
static RECORDED_BELOW: AtomicU64 = AtomicU64::new(0);

/// Whether spans are recorded at all in this process.
static RECORDING: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

const RANDOM_BITS: u32 = 56;

/// Records spans from here on: all of a trace that the caller records, and this part of the new ones, from 0 to 1.
/// Every process that gets the same trace comes to the same decision.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a part of 2^56 is a whole number between 0 and 2^56"
)]
pub fn record(part: f64) {
    let below = part.clamp(0.0, 1.0) * (1_u64 << RANDOM_BITS) as f64;
    RECORDED_BELOW.store(below as u64, Ordering::Relaxed);
    RECORDING.store(true, Ordering::Relaxed);
}

/// A span's place in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What all spans of the trace share. Not 0.
    pub trace_id: u128,
    /// The span itself. Not 0.
    pub span_id: u64,
    /// The span that caused it; `None` for the first one of the trace.
    pub parent_span_id: Option<u64>,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl Trace {
    /// The first span of a new trace.
    pub fn begin() -> Self {
        let trace_id = loop {
            let id: u128 = rand::random();
            if id != 0 {
                break id;
            }
        };
        #[allow(clippy::cast_possible_truncation, reason = "the lower bits are what is wanted")]
        let random = trace_id as u64 & ((1 << RANDOM_BITS) - 1);
        Self {
            trace_id,
            span_id: new_span_id(),
            parent_span_id: None,
            sampled: random < RECORDED_BELOW.load(Ordering::Relaxed),
        }
    }

    /// A span under the one of this `traceparent`; the first of a new trace when there is none, or it is not one.
    pub fn under(traceparent: Option<&str>) -> Self {
        traceparent.and_then(Self::parse).map_or_else(Self::begin, Self::child)
    }

    /// A span under this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            span_id: new_span_id(),
            parent_span_id: Some(self.span_id),
            ..self
        }
    }

    /// Whether a span of this trace is worth opening for the recording alone.
    pub fn is_recorded(self) -> bool {
        self.sampled && RECORDING.load(Ordering::Relaxed)
    }

    /// Reads a `traceparent`: version 00, lower-case, neither id 0. It goes into events and so to other systems, so
    /// what is only nearly one is none.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if version != "00" || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) || parts.next().is_some() {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok()?;
        let span_id = u64::from_str_radix(span, 16).ok()?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            parent_span_id: None,
            sampled: flags & 1 == 1,
        })
    }

    /// What the spans that this one causes are told.
    pub fn traceparent(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(formatter, "00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id)
    }
}

fn new_span_id() -> u64 {
    loop {
        let id: u64 = rand::random();
        if id != 0 {
            return id;
        }
    }
}

/// Opens a span that carries a [`Trace`]: `traced!(trace, "process", kind = "consumer", consumer = name)`.
///
/// `kind` is one of OpenTelemetry's: `server`, `client`, `producer`, `consumer`, `internal`. Further fields become the
/// span's attributes. Three names mean more: `name` is shown instead of the span's own, `error` says that it failed,
/// and `idle = true` says that nothing happened in it and that it need not be kept; declare those that come later
/// as `tracing::field::Empty`.
///
/// The span has no parent in [`tracing`]: its parent is the one that the trace names, often in another process.
#[macro_export]
macro_rules! traced {
    ($trace:expr, $name:literal, kind = $kind:literal $(, $($fields:tt)*)?) => {{
        let trace: $crate::trace::Trace = $trace;
        ::tracing::info_span!(
            parent: None,
            $name,
            trace_id = trace.trace_id,
            span_id = trace.span_id,
            parent_span_id = trace.parent_span_id,
            sampled = trace.sampled,
            kind = $kind,
            $($($fields)*)?
        )
    }};
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_is_taken_over_only_when_it_is_one() {
        assert_eq!(Trace::parse(CALLER).unwrap().to_string(), CALLER);
        for invalid in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(Trace::parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_span_names_the_one_that_caused_it() {
        let caller = Trace::parse(CALLER).unwrap();
        let request = Trace::under(Some(CALLER));
        assert_eq!(request.trace_id, caller.trace_id);
        assert_eq!(request.parent_span_id, Some(caller.span_id));
        assert!(request.sampled);
        let publish = Trace::under(Some(&request.traceparent()));
        assert_eq!(publish.trace_id, caller.trace_id);
        assert_eq!(publish.parent_span_id, Some(request.span_id));
        assert_ne!(publish.span_id, request.span_id);
    }

    #[test]
    fn without_a_caller_a_trace_begins_and_is_not_sampled_unless_asked_for() {
        let first = Trace::under(None);
        let second = Trace::under(Some("rubbish"));
        assert_ne!(first.trace_id, second.trace_id);
        assert_eq!(first.parent_span_id, None);
        assert!(first.to_string().ends_with("-00"));
    }
}
