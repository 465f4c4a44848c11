//! Somebody else's words in our messages.

/// More of a text than anybody reads.
const MAX_CHARS: usize = 200;

/// `text` for a message: what could end a line or steer a terminal is escaped, and what is long is cut.
pub(crate) fn foreign(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_short_and_on_its_line() {
        assert_eq!(foreign("größer ≤ 1"), "größer ≤ 1");
        assert_eq!(foreign("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(foreign(&"x".repeat(MAX_CHARS)), "x".repeat(MAX_CHARS));
        assert_eq!(foreign(&"x".repeat(MAX_CHARS + 1)), "x".repeat(MAX_CHARS) + "…");
    }
}
