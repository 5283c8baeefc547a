//! Text for people: colours, line breaks, and characters that a terminal must not interpret.

/// How to draw on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// No escape sequences.
    Plain,
    /// Colours for severities and carets.
    Colour,
}

impl Paint {
    /// What is to be found first.
    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What can be passed over.
    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// With the parameters of an ANSI escape sequence (ECMA-48, SGR).
    pub(crate) fn with(self, parameters: &str, text: &str) -> String {
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colour => format!("\x1b[{parameters}m{text}\x1b[0m"),
        }
    }
}

/// How many columns text for people may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Width(usize);

impl Width {
    /// Where no terminal says how wide it is.
    pub const DEFAULT: Width = Width(100);

    /// That of a terminal; sentences are not narrower than 60 columns, and not wider than 120.
    pub(crate) fn of_terminal(columns: u16) -> Self {
        Width(usize::from(columns).clamp(60, 120))
    }

    /// A text in lines, between words; those behind the first are indented by as many columns as its beginning has. A word
    /// that does not fit stays whole, so that it can be copied.
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

/// Control characters, and those that cannot be seen or turn the direction of others, written out: what somebody else has
/// sent or written must not be able to steer the terminal of whoever looks at it, nor to look like something else.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match is_unseen(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
        out
    })
}

/// Unicode's controls and format characters (general categories Cc and Cf), and its line and paragraph separators.
pub(crate) fn is_unseen(c: char) -> bool {
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
}
