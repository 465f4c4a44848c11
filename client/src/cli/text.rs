//! Text for a terminal of 80 columns.

use std::mem;

const COLUMNS: usize = 80;

/// Digits from which on a number is shown on a line of its own, so that two can be compared by eye and copied whole.
const LONG_HEX: usize = 64;

/// Where such lines begin.
const HEX_INDENT: &str = "    ";

/// `text` with `label` in front: too long lines go on under their own beginning, and long hexadecimal numbers stand alone.
pub(crate) fn wrapped(label: &str, text: &str) -> String {
    let hang = " ".repeat(label.chars().count());
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let label = if index == 0 { label } else { &hang };
        let own = &line[..line.len() - line.trim_start().len()];
        wrap_line(&mut lines, &format!("{label}{own}"), line.trim_start());
    }
    lines.join("\n")
}

fn wrap_line(lines: &mut Vec<String>, label: &str, text: &str) {
    let width = |text: &str| text.chars().count();
    let whole = format!("{label}{text}");
    if width(&whole) <= COLUMNS {
        return lines.push(whole);
    }
    let hang = " ".repeat(width(label));
    let (mut line, mut has_word) = (label.to_owned(), false);
    for word in text.split_whitespace() {
        let alone = is_long_hex(word);
        let full = has_word && width(&line) + 1 + width(word) > COLUMNS;
        if full || alone && !line.trim().is_empty() {
            lines.push(mem::replace(&mut line, hang.clone()).trim_end().to_owned());
            has_word = false;
        }
        if alone {
            lines.push(format!("{HEX_INDENT}{word}"));
            continue;
        }
        if has_word {
            line.push(' ');
        }
        line.push_str(word);
        has_word = true;
    }
    if has_word {
        lines.push(line);
    }
}

fn is_long_hex(word: &str) -> bool {
    let digits = word.trim_start_matches("sha384:").trim_end_matches([',', ';', '.', ')']);
    digits.len() >= LONG_HEX && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_under_their_beginning() {
        let words = ["word"; 40].join(" ");
        let text = wrapped("  found  ", &words);
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("         word")), "{text}");
        assert_eq!(text.split_whitespace().filter(|word| *word == "word").count(), 40);
    }

    #[test]
    fn lines_that_fit_keep_their_layout() {
        let toml = "bad\n  |\n2 | surprise = true\n  | ^^^^^^^^";
        assert_eq!(wrapped("", toml), toml);
        assert_eq!(wrapped("error: ", "a\n  b"), "error: a\n         b");
    }

    #[test]
    fn long_numbers_stand_alone_and_whole() {
        let hex = "ab".repeat(48);
        let text = wrapped("error: ", &format!("PCR0 differs\n  expected {hex}\n  actual   {hex}"));
        let shown: Vec<&str> = text.lines().collect();
        let alone = format!("    {hex}");
        assert_eq!(shown, ["error: PCR0 differs", "         expected", &alone, "         actual", &alone]);
        let text = wrapped("  ", &format!("sha384:{hex}, of the statement"));
        assert_eq!(text, format!("    sha384:{hex},\n  of the statement"));
    }
}
