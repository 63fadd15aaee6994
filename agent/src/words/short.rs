//! Names and times, short enough for a column: what tells them apart stays.

/// A function's name without the path of its package and without type arguments: `redis/v9.(*Client).Get`, `cache.(*Store[…]).Put`.
pub fn function(name: &str) -> String {
    let (head, arguments) = name.split_at(name.find('[').unwrap_or(name.len()));
    // Of `gopkg.in/yaml.v3.Node` the package is `yaml.v3`, and of `pgx/v5` the version alone tells nothing.
    let last = head.rfind('/').map_or(0, |slash| slash + 1);
    let is_version = head[last..]
        .strip_prefix('v')
        .and_then(|rest| rest.split('.').next())
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
    let from = match head[..last.saturating_sub(1)].rfind('/') {
        Some(before) if is_version => before + 1,
        None if is_version => 0,
        _ => last,
    };
    format!("{}{}", &head[from..], without_arguments(arguments))
}

/// Type arguments as an ellipsis, whatever they hold.
fn without_arguments(text: &str) -> String {
    let mut out = String::new();
    let mut depth = 0usize;
    for c in text.chars() {
        match c {
            '[' => {
                depth += 1;
                if depth == 1 {
                    out.push_str("[…]");
                }
            }
            ']' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

/// The name of a file without its directories.
pub fn file(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `0.3s`, `12s`, `4m12s`, `3h20m`, `2d4h`.
pub fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if whole < 10 => format!("{:.1}s", seconds.max(0.0)),
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// `118`, `99999`, `118k`, `3M`: five characters at most, short of a thousand million.
pub fn count(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..10_000_000 => format!("{}k", count / 1000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// `341K`, `4095M`, `12.3G`, `1234G`: five characters, for any size that is met.
pub fn bytes(count: u64) -> String {
    match count {
        0..0x40_0000 => format!("{}K", count >> 10),
        0x40_0000..0x1_0000_0000 => format!("{}M", count >> 20),
        0x1_0000_0000..0x19_0000_0000 => format!("{:.1}G", count as f64 / f64::from(1 << 30)),
        _ => format!("{}G", count >> 30),
    }
}

/// `0`, `.05`, `1.2`, `12`: three characters, up to 999.
pub fn percent(percent: f64) -> String {
    match percent {
        // Less than half of the last digit.
        ..0.005 => "0".to_owned(),
        ..0.995 => format!("{percent:.2}").trim_start_matches('0').to_owned(),
        ..9.95 => format!("{percent:.1}"),
        _ => format!("{percent:.0}"),
    }
}

/// How a number went, as a line of so many characters at most: the last of them, each as high as it is beside the highest.
pub fn line(values: &[u64], width: usize) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(width)..];
    let highest = shown.iter().max().copied().unwrap_or(0).max(1);
    let height = |value: &u64| (u128::from(*value) * 7).div_ceil(u128::from(highest));
    shown.iter().map(|value| HEIGHTS[height(value).min(7) as usize]).collect()
}

/// The beginning of a text, of so many characters at most, with an ellipsis where some are missing.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Beginning and end of a text, of so many characters together at most, with an ellipsis where some are missing.
pub fn cut_middle(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let (begin, end) = (kept / 2, kept - kept / 2);
    text.chars().take(begin).chain(['…']).chain(text.chars().skip(length - end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_keep_what_tells_them_apart() {
        for (name, short) in [
            ("main.main", "main.main"),
            ("example.com/shop/internal/cart.(*Cart).add.func1", "cart.(*Cart).add.func1"),
            ("github.com/redis/go-redis/v9.(*Client).Get", "go-redis/v9.(*Client).Get"),
            ("gopkg.in/yaml.v3.(*Node).Decode", "yaml.v3.(*Node).Decode"),
            ("example.com/x/cache.(*Store[go.shape.struct { example.com/a/b.T }]).Put", "cache.(*Store[…]).Put"),
            ("iter.Pull[go.shape.int].func1.1", "iter.Pull[…].func1.1"),
            ("v2.Run", "v2.Run"),
            ("", ""),
        ] {
            assert_eq!(function(name), short);
        }
    }

    #[test]
    fn times_have_two_units_at_most() {
        let said = [0.25, 12.7, 252.0, 12_000.0, 187_200.0, -1.0].map(time);
        assert_eq!(said, ["0.2s", "12s", "4m12s", "3h20m", "2d4h", "0.0s"]);
    }

    #[test]
    fn numbers_fit_their_column() {
        assert_eq!([7, 99_999, 118_400, 12_000_000].map(count), ["7", "99999", "118k", "12M"]);
        let sizes = [0, 349_184, 4_194_303, 4_194_304, 4_294_967_295, 13_207_024_435, 1 << 40];
        assert_eq!(sizes.map(bytes), ["0K", "341K", "4095K", "4M", "4095M", "12.3G", "1024G"]);
        let shares = [0.0, 0.004, 0.05, 0.994, 0.996, 1.25, 9.94, 9.96, 100.0, -1.0];
        assert_eq!(shares.map(percent), ["0", "0", ".05", ".99", "1.0", "1.2", "9.9", "10", "100", "0"]);
    }

    #[test]
    fn lines_are_as_high_as_their_numbers() {
        assert_eq!(line(&[0, 1, 50, 100], 10), "▁▂▅█");
        assert_eq!(line(&[100, 0, 0], 2), "▁▁", "the last of them");
        assert_eq!((line(&[], 5), line(&[u64::MAX], 5)), (String::new(), "█".to_owned()));
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!([cut("läuft", 5), cut("läuft", 4)], ["läuft", "läu…"]);
        assert_eq!([6, 5, 4, 1, 0].map(|width| cut_middle("läüfts", width)), ["läüfts", "lä…ts", "l…ts", "…", "…"]);
    }
}
