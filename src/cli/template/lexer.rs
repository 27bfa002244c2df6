//! Template text to tokens.

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Text outside actions, trimmed as its neighbours ask.
    Text(String),
    Open,
    Close,
    Space,
    /// `.Name`
    Field(String),
    /// `$`, `$name`
    Variable(String),
    Dot,
    Identifier(String),
    Quoted(String),
    Raw(String),
    Char(String),
    Number(String),
    Pipe,
    LeftParen,
    RightParen,
    Declare,
    Assign,
    Other(char),
    /// What cannot be read, and why; the last but one. The parser reports it when it comes to it, so that the first fault
    /// of the template is the one that is reported.
    Bad(String),
    End,
}

/// A token and where it begins, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

impl Token {
    /// How messages show it.
    pub(super) fn shown(&self) -> String {
        let word = match &self.kind {
            Kind::End => return "EOF".to_owned(),
            Kind::Bad(why) => return why.clone(),
            Kind::Text(text) | Kind::Quoted(text) | Kind::Raw(text) | Kind::Char(text) | Kind::Number(text) => {
                text.clone()
            }
            Kind::Dot => return "<.>".to_owned(),
            Kind::Open => "{{".to_owned(),
            Kind::Close => "}}".to_owned(),
            Kind::Space => " ".to_owned(),
            Kind::Field(name) => return format!("<.{name}>"),
            Kind::Variable(name) => name.clone(),
            Kind::Identifier(name) if is_keyword(name) => return format!("<{name}>"),
            Kind::Identifier(name) => name.clone(),
            Kind::Pipe => "|".to_owned(),
            Kind::LeftParen => "(".to_owned(),
            Kind::RightParen => ")".to_owned(),
            Kind::Declare => ":=".to_owned(),
            Kind::Assign => "=".to_owned(),
            Kind::Other(letter) => letter.to_string(),
        };
        let short: String = word.chars().take(10).collect();
        if short.len() < word.len() {
            format!("{}...", crate::quote::quote(&short))
        } else {
            crate::quote::quote(&word)
        }
    }
}

pub(super) fn is_keyword(name: &str) -> bool {
    ["block", "break", "continue", "define", "else", "end", "if", "range", "nil", "template", "with"].contains(&name)
}

/// A fault and the byte where it is.
pub(super) type Fault = (usize, String);

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
    parens: usize,
}

/// Cuts a template into tokens; the last is [`Kind::End`].
pub(super) fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new(), parens: 0 };
    if let Err((at, why)) = lexer.run() {
        lexer.tokens.push(Token { kind: Kind::Bad(why), at });
    }
    lexer.tokens.push(Token { kind: Kind::End, at: lexer.at });
    lexer.tokens
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut trim_next = false;
        loop {
            let rest = &self.text[self.at..];
            let (before, has_action) = match rest.find("{{") {
                Some(length) => (&rest[..length], true),
                None => (rest, false),
            };
            let after = &rest[before.len()..];
            let trims = has_action && after[2..].starts_with('-') && after[3..].starts_with(is_blank);
            let start = if trim_next { before.trim_start_matches(is_blank) } else { before };
            let shown = if trims { start.trim_end_matches(is_blank) } else { start };
            let at = self.at + (before.len() - start.len());
            if !shown.is_empty() {
                self.tokens.push(Token { kind: Kind::Text(shown.to_owned()), at });
            }
            self.at += before.len();
            if !has_action {
                return Ok(());
            }
            trim_next = self.action(trims)?;
        }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, length: usize) {
        self.tokens.push(Token { kind, at: self.at });
        self.at += length;
    }

    fn fault<T>(&self, why: &str) -> Result<T, Fault> {
        Err((self.at, why.to_owned()))
    }

    /// From `{{` to `}}`; answers whether blanks after it are trimmed.
    fn action(&mut self, trims: bool) -> Result<bool, Fault> {
        let open = self.at;
        self.at += if trims { 3 } else { 2 };
        let inner = self.rest().trim_start_matches(is_blank);
        let comment_at = self.text.len() - inner.len();
        if inner.starts_with("/*") && (trims || comment_at == self.at) {
            self.at = comment_at;
            return self.comment();
        }
        self.tokens.push(Token { kind: Kind::Open, at: open });
        self.parens = 0;
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches(is_blank).len();
            if blanks > 0 && rest[blanks..].starts_with("-}}") {
                self.at += blanks;
                return self.close(3, true);
            }
            if rest.starts_with("}}") {
                return self.close(2, false);
            }
            if blanks > 0 {
                self.push(Kind::Space, blanks);
                continue;
            }
            self.token()?;
        }
    }

    fn close(&mut self, length: usize, trims: bool) -> Result<bool, Fault> {
        if self.parens > 0 {
            return self.fault("unclosed left paren");
        }
        self.push(Kind::Close, length);
        Ok(trims)
    }

    fn comment(&mut self) -> Result<bool, Fault> {
        let Some(end) = self.rest().find("*/") else {
            return self.fault("unclosed comment");
        };
        self.at += end + 2;
        let rest = self.rest();
        let blanks = rest.len() - rest.trim_start_matches(is_blank).len();
        if blanks > 0 && rest[blanks..].starts_with("-}}") {
            self.at += blanks + 3;
            return Ok(true);
        }
        if rest.starts_with("}}") {
            self.at += 2;
            return Ok(false);
        }
        self.fault("comment ends before closing delimiter")
    }

    fn token(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return self.fault("unclosed action");
        };
        let second = rest.chars().nth(1);
        match first {
            '"' => self.quoted('"', "unterminated quoted string"),
            '\'' => self.quoted('\'', "unterminated character constant"),
            '`' => {
                let Some(end) = rest[1..].find('`') else {
                    return self.fault("unterminated raw quoted string");
                };
                self.push(Kind::Raw(rest[1..=end].to_owned()), end + 2);
                Ok(())
            }
            ':' if second == Some('=') => {
                self.push(Kind::Declare, 2);
                Ok(())
            }
            ':' => self.fault("expected :="),
            '=' => self.single(Kind::Assign),
            '|' => self.single(Kind::Pipe),
            '(' => {
                self.parens += 1;
                self.single(Kind::LeftParen)
            }
            ')' if self.parens == 0 => self.fault("unexpected right paren"),
            ')' => {
                self.parens -= 1;
                self.single(Kind::RightParen)
            }
            '.' if !second.is_some_and(|letter| letter.is_ascii_digit()) => self.word(Some('.')),
            '$' => self.word(Some('$')),
            '+' | '-' | '.' | '0'..='9' => self.number(),
            letter if is_word(letter) => self.word(None),
            letter if (' '..='~').contains(&letter) => {
                self.push(Kind::Other(letter), 1);
                Ok(())
            }
            letter => self.fault(&format!("unrecognized character in action: U+{:04X} '{letter}'", letter as u32)),
        }
    }

    fn single(&mut self, kind: Kind) -> Result<(), Fault> {
        self.push(kind, 1);
        Ok(())
    }

    fn quoted(&mut self, quote: char, why: &str) -> Result<(), Fault> {
        let rest = self.rest();
        let mut escaped = false;
        for (index, letter) in rest.char_indices().skip(1) {
            if letter == '\n' {
                break;
            }
            if letter == quote && !escaped {
                let inside = rest[1..index].to_owned();
                let kind = if quote == '"' { Kind::Quoted(inside) } else { Kind::Char(inside) };
                self.push(kind, index + 1);
                return Ok(());
            }
            escaped = letter == '\\' && !escaped;
        }
        self.fault(why)
    }

    /// A field, a variable or an identifier: letters, ended by something that may follow one.
    fn word(&mut self, sigil: Option<char>) -> Result<(), Fault> {
        let rest = self.rest();
        let skip = usize::from(sigil.is_some());
        let length = rest[skip..].find(|letter| !is_word(letter)).unwrap_or(rest.len() - skip);
        let name = rest[skip..skip + length].to_owned();
        if let Some(next) = rest[skip + length..].chars().next()
            && !is_blank(next)
            && !".,|:()".contains(next)
            && !rest[skip + length..].starts_with("}}")
            && !(sigil == Some('$') && next == '=')
            && !(sigil == Some('.') && name.is_empty())
        {
            self.at += skip + length;
            return self.fault(&format!("bad character U+{:04X} '{next}'", next as u32));
        }
        let kind = match sigil {
            Some('.') if name.is_empty() => Kind::Dot,
            Some('.') => Kind::Field(name),
            Some(_) => Kind::Variable(format!("${name}")),
            None => Kind::Identifier(name),
        };
        self.push(kind, skip + length);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let mut previous = ' ';
        let mut length = 0;
        for letter in rest.chars() {
            let sign = matches!(letter, '+' | '-') && (length == 0 || matches!(previous, 'e' | 'E' | 'p' | 'P'));
            if !(sign || letter == '.' || letter == '_' || letter.is_ascii_alphanumeric()) {
                break;
            }
            previous = letter;
            length += 1;
        }
        let text = &rest[..length];
        if super::value::parse_number(text).is_none() {
            return self.fault(&format!("illegal number syntax: {}", crate::quote::quote(text)));
        }
        self.push(Kind::Number(text.to_owned()), length);
        Ok(())
    }
}
