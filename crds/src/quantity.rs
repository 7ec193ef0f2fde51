//! Kubernetes quantities (`100m`, `64Mi`), as far as validation needs them: whether they are one, and which is larger.
//!
//! Source of the form: the documentation of `resource.Quantity` in the Kubernetes API.

/// Whether two quantities are the same amount (`1Gi` and `1024Mi`). What is no quantity equals only itself.
pub fn are_equal(one: &str, other: &str) -> bool {
    one == other || thousandths(one).is_some_and(|amount| Some(amount) == thousandths(other))
}

/// The value of a quantity in thousandths, rounded up as Kubernetes does. `None` when the text is not a quantity, is
/// negative, or is larger than 2^63 - 1.
pub(crate) fn thousandths(text: &str) -> Option<u128> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    // Thousandths of the suffix's unit; `m` is one thousandth.
    let factor: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000 * 1_000,
        "M" => 1_000 * 1_000_u128.pow(2),
        "G" => 1_000 * 1_000_u128.pow(3),
        "T" => 1_000 * 1_000_u128.pow(4),
        "P" => 1_000 * 1_000_u128.pow(5),
        "E" => 1_000 * 1_000_u128.pow(6),
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        "Ei" => 1_000 << 60,
        _ => {
            1_000
                * 10_u128.pow(
                    suffix
                        .strip_prefix(['e', 'E'])?
                        .parse::<u32>()
                        .ok()
                        .filter(|power| *power <= 18)?,
                )
        }
    };
    let scaled: u128 = format!("{whole}{fraction}").parse().ok()?;
    let value = scaled
        .checked_mul(factor)?
        .div_ceil(10_u128.pow(u32::try_from(fraction.len()).ok()?));
    (value <= u128::from(u64::MAX >> 1) * 1_000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_by_what_they_are_worth() {
        for (text, value) in [
            ("0", 0),
            ("100m", 100),
            ("0.1", 100),
            ("2", 2_000),
            ("1.5Gi", 1_610_612_736_000),
            ("64Mi", 67_108_864_000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            (".5", 500),
            ("1.", 1_000),
            ("0.0001", 1),
        ] {
            assert_eq!(thousandths(text), Some(value), "{text}");
        }
    }

    #[test]
    fn the_same_amount_may_be_spelt_otherwise() {
        assert!(are_equal("1Gi", "1024Mi"));
        assert!(!are_equal("1Gi", "1G"));
        assert!(are_equal("no quantity", "no quantity"));
        assert!(!are_equal("no quantity", "none either"));
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        for text in [
            "",
            ".",
            "m",
            "1 Gi",
            "64MB",
            "64mi",
            "-1",
            "1.2.3",
            "1e",
            "1e-3x",
            "9Ei9",
            "9999999999999999999",
            "16Ei",
        ] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }
}
