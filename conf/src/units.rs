//! Sizes and times as people write them: `64MiB`, `60ms`.

use std::time::Duration;

/// Sizes: `KiB` and its like are powers of 1,024, `KB` and its like powers of 1,000; a plain number is bytes.
///
/// # Errors
/// What is wrong and how a size is written.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            return Err(format!(
                "{text:?} is not a size; write it as \"64MiB\", \"64MB\" or in bytes"
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a size; write it as \"64MiB\", \"64MB\" or in bytes"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("{text:?} is larger than any disk"))
}

/// Times; the unit cannot be left out, since nobody could tell milliseconds from seconds.
///
/// # Errors
/// What is wrong and how a time is written.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write it with its unit, as \"60ms\" or \"2s\"");
    let (number, unit) = split(text);
    let factor_ms: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(factor_ms)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

/// A size in the largest unit that divides it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    for (factor, unit) in [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes} bytes")
}

/// A time in milliseconds or whole seconds.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms >= 1_000 && ms.is_multiple_of(1_000) {
        format!("{}s", ms / 1_000)
    } else {
        format!("{ms}ms")
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..at], text[at..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("64 mib", Some(64 << 20)),
            ("64MB", Some(64_000_000)),
            ("17", Some(17)),
            ("17B", Some(17)),
            ("100GiB", Some(100 << 30)),
            ("64M", None),
            ("-1", None),
            ("1.5GiB", None),
            ("", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), bytes, "{text}");
        }
        assert_eq!(show_bytes(64 << 20), "64MiB");
        assert_eq!(show_bytes(1_500), "1500 bytes");
    }

    #[test]
    fn times() {
        for (text, ms) in [
            ("60ms", Some(60)),
            ("2s", Some(2_000)),
            ("2 s", Some(2_000)),
            ("5min", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("60", None),
            ("ms", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse_duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
        assert_eq!(show_duration(Duration::from_millis(60)), "60ms");
        assert_eq!(show_duration(Duration::from_secs(2)), "2s");
    }
}
