//! Text for terminals: colours, line breaks, and escapes for characters that a terminal must not interpret.

/// Whether output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// No escape sequences.
    Plain,
    /// Colours for severities and carets.
    Colour,
}

impl Paint {
    /// For important text.
    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// For less important text.
    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// Text with SGR parameters (ECMA-48).
    pub(crate) fn with(self, parameters: &str, text: &str) -> String {
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colour => format!("\x1b[{parameters}m{text}\x1b[0m"),
        }
    }
}

/// Line width for text, in columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Width(usize);

impl Width {
    /// Width if stdout is not a terminal, or its width is unknown: 100 columns.
    pub const DEFAULT: Width = Width(100);

    /// Width of a terminal, but from 60 to 120 columns.
    pub(crate) fn of_terminal(columns: u16) -> Self {
        Width(usize::from(columns).clamp(60, 120))
    }

    /// Breaks a text into lines between words. The second and later lines are indented by the width of `beginning`. A
    /// word that is longer than the line is not broken, so that it can be copied.
    pub(crate) fn wrap(self, beginning: &str, text: &str) -> String {
        let indent = beginning.chars().count();
        let (mut wrapped, mut column) = (beginning.to_owned(), indent);
        for word in text.split(' ') {
            let length = word.chars().count();
            if column > indent && column + 1 + length > self.0 {
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else if column > indent {
                wrapped.push(' ');
                column += 1;
            }
            wrapped.push_str(word);
            column += length;
        }
        wrapped
    }
}

/// Quotes a word for a POSIX shell, if it has characters other than plain ones.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Escapes invisible characters. Data from clients must not control the terminal of the reader, nor look like other
/// text.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match is_invisible(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
        out
    })
}

/// Unicode control and format characters (general categories Cc and Cf), and line and paragraph separators.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let narrow = Width::of_terminal(1);
        let text = "one two three four five six seven eight nine ten eleven twelve thirteen";
        assert_eq!(
            narrow.wrap("  label  ", text),
            "  label  one two three four five six seven eight nine ten\n         eleven twelve thirteen"
        );
        let long = "https://a.example/".repeat(5);
        assert_eq!(narrow.wrap("", &format!("at {long} it")), format!("at\n{long}\nit"));
        assert_eq!(narrow.wrap("- ", &long), format!("- {long}"));
        assert_eq!((Width::of_terminal(80), Width::of_terminal(100)), (Width(80), Width::DEFAULT));
        assert_eq!((Width::of_terminal(20), Width::of_terminal(u16::MAX)), (Width(60), Width(120)));
    }

    #[test]
    fn shell_words_are_quoted() {
        for (text, safe) in [
            ("https://app.example:8443", "https://app.example:8443"),
            ("", "''"),
            ("$(reboot)", "'$(reboot)'"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("`x`", "'`x`'"),
            ("*", "'*'"),
            ("https://x/?a&b", "'https://x/?a&b'"),
            ("~", "'~'"),
        ] {
            assert_eq!(shell_word(text), safe);
        }
    }
}
