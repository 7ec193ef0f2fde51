//! Ports on loopback that stay one's own while what listens there comes and goes.
//!
//! Asking the kernel for port 0 gives one that any outgoing connection may take while the part that had it is down, and
//! the part then cannot come back. So ports are taken from below the range that the kernel gives out by itself.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::{Result, bail};
use rand::RngExt;

/// Above what well-known services use, below the kernel's own range where that begins at its default.
const RANGE: Range<u16> = 20_000..32_000;
const TRIES: usize = 1000;

/// Ports by what they are for, such as `kafka.broker`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub BTreeMap<String, u16>);

impl Ports {
    /// The port for this purpose; a new free one the first time.
    pub fn take(&mut self, purpose: &str) -> Result<u16> {
        if let Some(port) = self.0.get(purpose) {
            return Ok(*port);
        }
        let range = range();
        for _ in 0..TRIES {
            let port = rand::rng().random_range(range.clone());
            if !self.0.values().any(|taken| *taken == port) && is_free(port) {
                self.0.insert(purpose.to_owned(), port);
                return Ok(port);
            }
        }
        bail!("there is no free port between {} and {}", range.start, range.end);
    }
}

/// Whether nothing listens there.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn range() -> Range<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = text.split_whitespace().next().and_then(|first| first.parse().ok());
    match first {
        Some(first) if first > RANGE.start + 1000 => RANGE.start..RANGE.end.min(first),
        _ => RANGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_keeps_its_port_and_shares_it_with_none() -> Result<()> {
        let mut ports = Ports::default();
        let first = ports.take("kafka.broker")?;
        let second = ports.take("kafka.controller")?;
        assert_ne!(first, second);
        assert_eq!(ports.take("kafka.broker")?, first);
        Ok(())
    }
}
