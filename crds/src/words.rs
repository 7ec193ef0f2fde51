//! The words of messages: how a user's text is quoted, and which name was probably meant.

/// `text` in quotes, on one line, and short.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// The name that was probably meant: the same but for case, or at most two edits away (one for short names).
pub fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    if text.len() > 64 {
        return None;
    }
    let lower = text.to_lowercase();
    let distance = |name: &&'a str| edits(&lower, &name.to_lowercase());
    let best = known.iter().copied().min_by_key(distance)?;
    let most = if lower.chars().count() <= 4 { 1 } else { 2 };
    (distance(&best) <= most).then_some(best)
}

/// How many letters must be added, removed, replaced or swapped with their neighbour (optimal string alignment).
fn edits(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["version", "workers", "api", "kafka"];
        assert_eq!(nearest("vesrion", &known), Some("version"));
        assert_eq!(nearest("Workers", &known), Some("workers"));
        assert_eq!(nearest("apis", &known), Some("api"));
        assert_eq!(nearest("database", &known), None);
        assert_eq!(nearest("", &[]), None);
    }
}
