//! Colours for terminals: around words that cannot steer one.
//!
//! Whether a stream gets them is anstream's to say: not where it is no terminal, with `NO_COLOR` or `TERM=dumb`; always with
//! `CLICOLOR_FORCE`.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

use cloister_client::words::safe;

/// What went well.
pub(crate) const OK: Style = AnsiColor::Green.on_default();
/// What did not.
pub(crate) const FAIL: Style = AnsiColor::Red.on_default().bold();
/// What nobody should overlook.
pub(crate) const BANNER: Style = AnsiColor::Yellow.on_default().bold();

/// A text whose colours are ours alone: everything that is put into it is made [`safe`].
#[derive(Clone, Debug)]
pub(crate) struct Painted(String);

impl Painted {
    /// A text in a colour.
    pub(crate) fn new(style: Style, text: impl Display) -> Self {
        Self(format!("{style}{}{style:#}", safe(&text.to_string())))
    }

    /// A text of which the first `word` is in a colour. What is not ours stands behind it.
    pub(crate) fn first(style: Style, word: &str, text: impl Display) -> Self {
        let text = safe(&text.to_string());
        match text.split_once(word) {
            Some((before, after)) => Self(format!("{before}{style}{word}{style:#}{after}")),
            None => Self(text),
        }
    }

    /// Texts below each other.
    pub(crate) fn lines(lines: impl IntoIterator<Item = Self>) -> Self {
        Self(lines.into_iter().map(|Self(line)| line).collect::<Vec<_>>().join("\n"))
    }

    /// With escape sequences, which only a stream of anstream's may get.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Display> From<T> for Painted {
    fn from(text: T) -> Self {
        Self(safe(&text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_colours_are_in_a_text() {
        let text = Painted::first(FAIL, "error", "error: \u{1b}[32mok\u{1b}[0m, error");
        assert_eq!(text.as_str(), "\u{1b}[1m\u{1b}[31merror\u{1b}[0m: \u{fffd}[32mok\u{fffd}[0m, error");
        let text = Painted::lines([Painted::new(OK, "\u{1b}c"), "plain\r".into(), Painted::first(OK, "ok", "none")]);
        assert_eq!(text.as_str(), "\u{1b}[32m\u{fffd}c\u{1b}[0m\nplain\u{fffd}\nnone");
    }
}
