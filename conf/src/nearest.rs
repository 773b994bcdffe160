//! The word that a misspelt one was probably meant to be.

/// The candidate nearest to `word`, where it is near enough to be worth asking about.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in three letters, so that `data` is not proposed for `node`.
    let distance_max = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "x"?`, or a list of what would be right.
pub(crate) fn advice<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(meant) = nearest(word, candidates.clone()) {
        return format!("; did you mean {meant:?}?");
    }
    let all: Vec<&str> = candidates.into_iter().collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("; known here: {}", all.join(", "))
    }
}

/// Edit distance in which swapping two neighbours counts as one slip (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_fetched() {
        let keys = ["node", "group", "data", "members", "listen"];
        for (word, meant) in [
            ("grup", Some("group")),
            ("gruop", Some("group")),
            ("Group", Some("group")),
            ("member", Some("members")),
            ("lissen", Some("listen")),
            ("nod", Some("node")),
            ("xyz", None),
            ("brokerName", None),
        ] {
            assert_eq!(nearest(word, keys), meant, "{word}");
        }
    }
}
