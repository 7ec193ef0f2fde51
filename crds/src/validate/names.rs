//! Host names and network addresses, as far as they can be wrong without asking anyone.

/// A DNS name (RFC 1123): labels of letters, digits and hyphens, at most 253 characters.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// "host:port", where the host may be an IPv6 address in brackets.
pub(super) fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_fits = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    let port_fits = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    host_fits && port_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for text in [
            "kafka:9092",
            "otel-collector.observability:4317",
            "10.0.0.1:1",
            "[::1]:65535",
        ] {
            assert!(is_host_port(text), "{text}");
        }
        for text in [
            "kafka",
            "kafka:",
            ":9092",
            "kafka:0",
            "kafka:65536",
            "kafka:+1",
            "http://kafka:1",
            "-a:1",
            "a_b:1",
            "::1:5",
        ] {
            assert!(!is_host_port(text), "{text}");
        }
    }

    #[test]
    fn hosts_have_labels_of_1_to_63_characters() {
        assert!(is_host(&format!("{}.example.com", "a".repeat(63))));
        for text in [
            "",
            ".",
            "a..b",
            "a.",
            "*.example.com",
            "todo.example.com/x",
            &"a".repeat(64),
        ] {
            assert!(!is_host(text), "{text}");
        }
    }
}
