//! Names and reasons: people read them, tell releases apart by them, and see them in the middle of other lines.

use super::PolicyError;

/// The longest name, in characters.
const MAX_NAME: usize = 128;

/// The longest reason for a revocation, in characters.
const MAX_REASON: usize = 1000;

/// Requires a name that can be shown: at most 128 characters, all of them visible.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), PolicyError> {
    if name.is_empty() {
        return Err(PolicyError::EmptyName { what });
    }
    check(what, name, MAX_NAME)
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
    match text.chars().find(|c| !is_visible(*c)) {
        Some(character) => Err(PolicyError::Unprintable { what, text: text.to_owned(), character }),
        None => Ok(()),
    }
}

/// Whether a character is shown as itself: it neither ends a line, nor steers a terminal, nor reorders or hides what is near.
fn is_visible(c: char) -> bool {
    let space = c.is_whitespace() && c != ' ';
    let hidden = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !(c.is_control() || space || hidden)
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
