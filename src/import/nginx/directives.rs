//! The text of an nginx configuration as directives with their lines, by the rules of `ngx_conf_read_token`:
//! <https://github.com/nginx/nginx/blob/master/src/core/ngx_conf_file.c>.

use super::super::value::SyntaxError;

/// `name arguments;` or `name arguments { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Line number, counted from 1.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// `None` if the directive has no braces.
    pub(super) block: Option<Vec<Directive>>,
}

/// Limit of nested blocks. nginx itself has no limit.
const MAX_DEPTH: usize = 64;

/// Parses the directives of a text.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, SyntaxError> {
    let mut reader = Reader { rest: text, line: 1 };
    let all = reader.block(0, None)?;
    Ok(all)
}

impl Directive {
    pub(super) fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn inner(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

impl Reader<'_> {
    /// Reads directives up to the closing brace. `opened` is the line of the opening brace.
    fn block(&mut self, depth: usize, opened: Option<usize>) -> Result<Vec<Directive>, SyntaxError> {
        if depth == MAX_DEPTH {
            return error(self.line, "blocks are nested too deeply");
        }
        let mut directives = Vec::new();
        let (mut words, mut first) = (Vec::new(), self.line);
        loop {
            let Some((token, line)) = self.token()? else {
                return match (opened, words.is_empty()) {
                    (_, false) => error(first, "the directive that begins here has no `;`"),
                    (Some(line), true) => error(line, "the block that begins here has no `}`"),
                    (None, true) => Ok(directives),
                };
            };
            match token {
                Token::Word(word) => {
                    if words.is_empty() {
                        first = line;
                    }
                    words.push(word);
                }
                Token::End | Token::Open if words.is_empty() => return error(line, "a directive is missing here"),
                Token::End => directives.push(directive(first, &mut words, None)),
                Token::Open => {
                    let block = self.block(depth + 1, Some(line))?;
                    directives.push(directive(first, &mut words, Some(block)));
                }
                Token::Close if !words.is_empty() => {
                    return error(first, "the directive that begins here has no `;`");
                }
                Token::Close if opened.is_none() => return error(line, "this `}` closes nothing"),
                Token::Close => return Ok(directives),
            }
        }
    }

    fn token(&mut self) -> Result<Option<(Token, usize)>, SyntaxError> {
        loop {
            let Some(c) = self.rest.chars().next() else { return Ok(None) };
            match c {
                '\n' => self.advance(c),
                c if c.is_whitespace() => self.advance(c),
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                ';' | '{' | '}' => {
                    self.advance(c);
                    let token = match c {
                        ';' => Token::End,
                        '{' => Token::Open,
                        _ => Token::Close,
                    };
                    return Ok(Some((token, self.line)));
                }
                '"' | '\'' => return self.quoted(c).map(Some),
                _ => return Ok(Some(self.plain())),
            }
        }
    }

    fn advance(&mut self, c: char) {
        self.line += usize::from(c == '\n');
        self.rest = &self.rest[c.len_utf8()..];
    }

    fn quoted(&mut self, quote: char) -> Result<(Token, usize), SyntaxError> {
        let line = self.line;
        self.advance(quote);
        let mut word = String::new();
        loop {
            let Some(c) = self.rest.chars().next() else {
                return error(line, "the quotes that begin here do not end");
            };
            self.advance(c);
            match c {
                c if c == quote => break,
                '\\' if self.rest.starts_with(['"', '\'', '\\']) => {
                    let next = self.rest.chars().next().unwrap_or(quote);
                    self.advance(next);
                    word.push(next);
                }
                c => word.push(c),
            }
        }
        match self.rest.chars().next() {
            Some(c) if c.is_whitespace() || ";{)".contains(c) => Ok((Token::Word(word), line)),
            None => Ok((Token::Word(word), line)),
            Some(c) => error(
                self.line,
                &format!("unexpected `{c}` after the quoted text `{word}`; check the quotes of this line"),
            ),
        }
    }

    fn plain(&mut self) -> (Token, usize) {
        let line = self.line;
        let mut word = String::new();
        while let Some(c) = self.rest.chars().next() {
            // `${name}` is part of a word.
            let is_variable = c == '{' && word.ends_with('$');
            if (c.is_whitespace() || ";{".contains(c)) && !is_variable {
                break;
            }
            self.advance(c);
            word.push(c);
            if c == '\\'
                && let Some(next) = self.rest.chars().next()
            {
                self.advance(next);
                word.push(next);
            }
        }
        (Token::Word(word), line)
    }
}

fn error<T>(line: usize, message: &str) -> Result<T, SyntaxError> {
    Err(SyntaxError { line, message: message.to_owned() })
}

fn directive(line: usize, words: &mut Vec<String>, block: Option<Vec<Directive>>) -> Directive {
    let mut words = std::mem::take(words).into_iter();
    Directive { line, name: words.next().unwrap_or_default(), arguments: words.collect(), block }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_have_their_lines() {
        let all = parse(
            "# c\nmap $a $b { default \"\"; ~^x\\.y$ 1; }\nserver {\n  return 200 'a;b\\'c';\n  set $x ${y}z;\n}\n",
        )
        .unwrap();
        assert_eq!((all[0].line, all[0].inner()[1].name.as_str()), (2, r"~^x\.y$"));
        let server = all[1].inner();
        assert_eq!((server[0].line, server[0].argument(1)), (4, "a;b'c"));
        assert_eq!(server[1].argument(1), "${y}z");
    }

    #[test]
    fn mistakes_have_their_lines() {
        for (text, line) in [
            ("a {\n b 'x '*'\n c;\n}", 2),
            ("a {\n b;\n", 1),
            ("a;\n}", 2),
            ("a {\n b\n}", 2),
            ("a 'x", 1),
            (";", 1),
            (&"a {".repeat(100), 1),
        ] {
            assert_eq!(parse(text).map_err(|error| error.line), Err(line), "{text}");
        }
    }
}
