//! Sizes, times and texts as people read them.

use std::fmt::Write;

use super::{Histogram, UnixTime};

/// A text as printable ASCII: a name, a path or an error can have anything in it.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() || c == ' ' {
            clean.push(c);
        } else {
            // Writing to a string does not fail.
            let _written = write!(clean, "{}", c.escape_default());
        }
    }
    clean
}

/// Bytes with three digits at most before the unit: `13.8 MiB`. The page rounds as this does.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut whole, mut rest, mut unit) = (bytes, 0, 0);
    for place in 0..=UNITS.len() {
        if whole < 1000 {
            unit = place;
            break;
        }
        (whole, rest) = (whole >> 10, whole & 1023);
    }
    let unit = unit.checked_sub(1).and_then(|unit| UNITS.get(unit)).unwrap_or(&"B");
    if whole < 100 {
        format!("{whole}.{} {unit}", rest * 10 / 1024)
    } else {
        format!("{whole} {unit}")
    }
}

/// A number of seconds in the largest unit of which there are two, or one: `3 min`.
pub(super) fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long ago a time was; a clock may have been set back.
pub(crate) fn age(now: UnixTime, then: UnixTime) -> String {
    time(now.0.saturating_sub(then.0))
}

/// A number and what is counted: `1 key`, `2 keys`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The time within which half, and 99 of 100, have ended: `p50 <= 5 ms, p99 <= 25 ms`.
/// `None` where there was nothing.
pub(super) fn quantiles(histogram: &Histogram) -> Option<String> {
    let quantile = |percent: u128| {
        let wanted = (u128::from(histogram.count) * percent).div_ceil(100);
        let pairs = histogram.le.iter().zip(&histogram.counts);
        match pairs.clone().find(|(_, counted)| u128::from(**counted) >= wanted) {
            Some((bound, _)) => format!("p{percent} <= {}", bound_text(*bound)),
            None => match histogram.le.last() {
                Some(bound) => format!("p{percent} > {}", bound_text(*bound)),
                None => format!("p{percent} unknown"),
            },
        }
    };
    (histogram.count > 0).then(|| format!("{}, {}", quantile(50), quantile(99)))
}

fn bound_text(seconds: f64) -> String {
    if seconds < 1.0 { format!("{} ms", seconds * 1000.0) } else { format!("{seconds} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_controls_a_terminal() {
        assert_eq!(
            clean("a b\u{1b}[2J\n\u{9b}\u{202e}\t'\\"),
            "a b\\u{1b}[2J\\n\\u{9b}\\u{202e}\\t'\\"
        );
    }

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_300_000, "1.2 MiB"),
            (14_500_000, "13.8 MiB"),
            (104_857_599, "99.9 MiB"),
            (1_047_552, "0.9 MiB"),
            (120 << 30, "120 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_have_one_unit() {
        let texts = [0, 119, 120, 7199, 7200, 172_800].map(time);
        assert_eq!(texts, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
        assert_eq!(age(UnixTime(5), UnixTime(9)), "0 s");
    }

    #[test]
    fn quantiles_are_the_bounds_that_hold() {
        let of = |counts: [u64; 3], count| {
            quantiles(&Histogram {
                le: vec![0.0005, 0.25, 1.0],
                counts: counts.to_vec(),
                count,
                sum: 0.0,
            })
        };
        assert_eq!(of([0; 3], 0), None);
        assert_eq!(of([50, 99, 100], 100).as_deref(), Some("p50 <= 0.5 ms, p99 <= 250 ms"));
        assert_eq!(of([0, 1, 1], 2).as_deref(), Some("p50 <= 250 ms, p99 > 1 s"));
    }
}
