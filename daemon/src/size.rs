//! Sizes on the command line.

/// Bytes as a number, or one of kB, MB, GB or TB.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        other => return Err(format!("`{other}` is no unit; use kB, MB, GB or TB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{digits}` is no whole number"))?;
    number.checked_mul(unit).ok_or_else(|| "that is more than any disk holds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("17"), Ok(17));
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("2 GB"), Ok(2_000_000_000));
        for wrong in ["", "MB", "1.5GB", "5mb", "99999999999TB", "-1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
