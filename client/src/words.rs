//! Words for people, whether a terminal or a page shows them.

/// What is said wherever something simulated is shown.
pub const SIMULATED: &str = "\
SIMULATED: this is not a Nitro Enclave. Its documents are signed by
a simulated authority; they prove nothing about any hardware.";

/// What is said wherever somebody ends TLS before the enclave.
pub const NO_CHANNEL: &str = "\
TLS ENDS BEFORE THE ENCLAVE: whoever ends it sees sizes and times, and may hand requests to
another enclave that the policy accepts. Features and logits stay encrypted, and no answer
counts without a receipt of the enclave that was verified.";

/// A number as a person writes it: at most six decimals, without the digits that only binary has.
pub fn short(number: f64) -> String {
    if number != 0.0 && !(1e-3..1e9).contains(&number.abs()) {
        return format!("{number:.3e}");
    }
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Somebody else's words in a line of ours, from a file, a document or a peer: they neither end it nor steer what shows it, and
/// what is long is cut. Whoever wants all of it has `--json`.
pub fn foreign(text: &str) -> String {
    let escaped = |c: char| if is_printable(c) { c.to_string() } else { c.escape_default().to_string() };
    let mut shown: String = text.chars().take(MAX_FOREIGN).map(escaped).collect();
    if text.chars().nth(MAX_FOREIGN).is_some() {
        shown.push('…');
    }
    shown
}

/// More of a name than anybody reads, in characters.
const MAX_FOREIGN: usize = 200;

/// Text without what could steer a terminal or reorder a line, whoever forgot [`foreign`].
pub fn safe(text: &str) -> String {
    let shown = |c: char| if c == '\n' || is_printable(c) { c } else { char::REPLACEMENT_CHARACTER };
    text.chars().map(shown).collect()
}

/// Whether a character is shown as itself in the middle of a word: what Rust escapes in strings is not, but for quotes and `\`.
fn is_printable(c: char) -> bool {
    let word = String::from_iter(['a', c]);
    matches!(c, '"' | '\'' | '\\') || word.escape_debug().eq(word.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_steers_a_terminal() {
        assert_eq!(safe("a\u{1b}[31mb\u{202e}c\rd\ne"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d\ne");
        for c in ['\u{61c}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{feff}', '\u{e0041}'] {
            assert_eq!(safe(&c.to_string()), "\u{fffd}", "{c:?}");
        }
        for text in ["größer ≤ 1", "वर्गीकरण", "cafe\u{301}", "\"it's\" a\\b"] {
            assert_eq!(safe(text), text);
        }
    }

    #[test]
    fn foreign_words_stay_in_their_line_and_are_short() {
        assert_eq!(foreign("iris\nVERIFIED\r\u{85}\u{2028}\u{1b}[2J"), "iris\\nVERIFIED\\r\\u{85}\\u{2028}\\u{1b}[2J");
        assert_eq!(foreign("ab\u{61c}\u{202e}c"), "ab\\u{61c}\\u{202e}c");
        for text in ["größer ≤ 1", "वर्गीकरण", "\"it's\" a\\b", &"x".repeat(MAX_FOREIGN)] {
            assert_eq!(foreign(text), text);
        }
        assert_eq!(foreign(&"x".repeat(MAX_FOREIGN + 1)), "x".repeat(MAX_FOREIGN) + "…");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in
            [(3.9399999999999995, "3.94"), (-0.13999999999999999, "-0.14"), (8.0, "8"), (0.0, "0"), (1e-7, "1.000e-7")]
        {
            assert_eq!(short(number), text);
        }
    }
}
