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

/// Names for a message: the first few of them, and how many more there are.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = names.take(SHOWN).map(|name| foreign(name)).collect();
    match more {
        0 if shown.is_empty() => shown.push("none".to_owned()),
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    shown.join(", ")
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

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (1..=7).map(|number| number.to_string()).collect();
        assert_eq!(listed(names[..0].iter()), "none");
        assert_eq!(listed(names[..5].iter()), "1, 2, 3, 4, 5");
        assert_eq!(listed(names.iter()), "1, 2, 3, 4, 5, 2 more");
    }
}
