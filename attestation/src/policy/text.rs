//! Names and reasons: people read them, tell releases apart by them, and see them in the middle of other lines.

use std::iter;

use super::PolicyError;

/// The longest name, in characters.
const MAX_NAME: usize = 128;

/// The longest reason for a revocation, in characters.
const MAX_REASON: usize = 1000;

/// Requires a name that can be shown: at most 128 characters, all of them visible, the first and the last too.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), PolicyError> {
    if name.is_empty() {
        return Err(PolicyError::EmptyName { what });
    }
    check(what, name, MAX_NAME)?;
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(PolicyError::Unprintable { what, text: name.to_owned(), character: ' ' });
    }
    Ok(())
}

/// Requires a reason that can be shown in a line.
pub(super) fn check_reason(reason: &str) -> Result<(), PolicyError> {
    check("reason", reason, MAX_REASON)
}

fn check(what: &'static str, text: &str, limit: usize) -> Result<(), PolicyError> {
    let actual = text.chars().count();
    if actual > limit {
        return Err(PolicyError::TextTooLong { what, limit, actual });
    }
    match invisible(text) {
        Some(character) => Err(PolicyError::Unprintable { what, text: text.to_owned(), character }),
        None => Ok(()),
    }
}

/// The first character that is not shown as itself; of combining marks, one that has no letter before it.
fn invisible(text: &str) -> Option<char> {
    let before = iter::once(' ').chain(text.chars());
    let mut pairs = before.zip(text.chars());
    pairs.find(|(before, c)| !is_visible(*c) || *before == ' ' && is_mark(*c)).map(|(_, c)| c)
}

/// Whether a character is shown as itself in the middle of a word: it neither ends a line, nor steers a terminal, nor reorders
/// or hides what is near.
///
/// What Rust escapes in strings is not, but for quotes and `\`: controls, formats, spaces but U+0020, private use, whatever
/// Unicode has not assigned.
pub(super) fn is_visible(c: char) -> bool {
    let word = String::from_iter(['a', c]);
    matches!(c, '"' | '\'' | '\\') || (!is_blank(c) && word.escape_debug().eq(word.chars()))
}

/// Whether a visible character is a combining mark: Rust escapes those where a text begins with them.
fn is_mark(c: char) -> bool {
    !c.is_ascii() && c.escape_debug().len() > 1
}

/// Letters, marks and symbols that are shown as nothing: joiners, fillers, selectors of variants, Braille without dots.
fn is_blank(c: char) -> bool {
    matches!(c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fffc}' | '\u{16fe4}' | '\u{1d159}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_it_is() {
        for name in ["1.2.0", "größer ≤ 2", "वर्गीकरण", "a \"good\" build", &"ä".repeat(MAX_NAME)]
        {
            assert_eq!(check_name("release", name), Ok(()), "{name}");
        }
        for character in
            ['\n', '\r', '\t', '\0', '\u{1b}', '\u{85}', '\u{a0}', '\u{200b}', '\u{202e}', '\u{2028}', '\u{feff}']
        {
            let text = format!("1.0{character}2");
            let refused = PolicyError::Unprintable { what: "release", text: text.clone(), character };
            assert_eq!(check_name("release", &text), Err(refused));
            assert!(!check_reason(&text).unwrap_err().to_string().contains(character), "it is shown escaped");
        }
    }

    /// Beside those that Rust escapes, whatever Unicode's `Default_Ignorable_Code_Point` lists, and what is drawn as nothing.
    #[test]
    fn what_is_not_seen_is_refused() {
        let ranges = [
            '\u{34f}'..='\u{34f}',
            '\u{61c}'..='\u{61c}',
            '\u{115f}'..='\u{1160}',
            '\u{17b4}'..='\u{17b5}',
            '\u{180b}'..='\u{180f}',
            '\u{2000}'..='\u{200f}',
            '\u{2028}'..='\u{202f}',
            '\u{205f}'..='\u{206f}',
            '\u{2800}'..='\u{2800}',
            '\u{3000}'..='\u{3000}',
            '\u{3164}'..='\u{3164}',
            '\u{e000}'..='\u{f8ff}',
            '\u{fdd0}'..='\u{fdef}',
            '\u{fe00}'..='\u{fe0f}',
            '\u{ffa0}'..='\u{ffa0}',
            '\u{fff0}'..='\u{fffc}',
            '\u{fffe}'..='\u{ffff}',
            '\u{1bca0}'..='\u{1bca3}',
            '\u{1d173}'..='\u{1d17a}',
            '\u{e0000}'..='\u{10ffff}',
        ];
        for character in ranges.into_iter().flatten() {
            let text = format!("1.0{character}2");
            let refused = PolicyError::Unprintable { what: "release", text: text.clone(), character };
            assert_eq!(check_name("release", &text), Err(refused), "{character:?}");
        }
    }

    #[test]
    fn a_mark_stands_on_a_letter() {
        for name in ["cafe\u{301}", "की", "Z\u{335}\u{336}"] {
            assert_eq!(check_name("model", name), Ok(()), "{name}");
        }
        for name in ["\u{301}cafe", "a \u{301}cafe", "\u{94d}"] {
            assert_eq!(check_name("model", name).unwrap_err().code(), "policy_unprintable", "{name:?}");
        }
    }

    #[test]
    fn a_name_begins_and_ends_with_what_is_seen() {
        for name in [" 1.0", "1.0 ", " "] {
            let refused = PolicyError::Unprintable { what: "release", text: name.to_owned(), character: ' ' };
            assert_eq!(check_name("release", name), Err(refused));
        }
        assert_eq!(check_name("release", "1.0 of May"), Ok(()));
    }

    #[test]
    fn texts_have_limits() {
        assert_eq!(check_name("model", ""), Err(PolicyError::EmptyName { what: "model" }));
        let long = "ä".repeat(MAX_NAME + 1);
        let refused = PolicyError::TextTooLong { what: "model", limit: MAX_NAME, actual: MAX_NAME + 1 };
        assert_eq!(check_name("model", &long), Err(refused));
        assert_eq!(check_reason(&long), Ok(()));
        assert_eq!(check_reason(&"x".repeat(MAX_REASON + 1)).unwrap_err().code(), "policy_text_too_long");
    }
}
