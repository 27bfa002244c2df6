//! Words of a Dockerfile instruction: splitting, quotes, escapes, `$VARIABLES` (Dockerfile reference, "Environment
//! replacement").

/// Splits at blanks outside of quotes; quotes and escapes stay in the words.
pub(super) fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (None, blank) if blank.is_whitespace() => words.extend(start.take().map(|from: usize| &text[from..at])),
            (open, '\\') if open != Some('\'') => {
                start.get_or_insert(at);
                characters.next();
            }
            (None, '"' | '\'') => {
                start.get_or_insert(at);
                quote = Some(character);
            }
            (Some(open), close) if open == close => quote = None,
            _ => {
                start.get_or_insert(at);
            }
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a {quote} is not closed"));
    }
    words.extend(start.map(|from| &text[from..]));
    Ok(words)
}

/// Removes quotes and escapes and puts variables in.
pub(super) fn expand(word: &str, env: &[String]) -> Result<String, String> {
    let mut scanner = Scanner { rest: word, env };
    scanner.until(None)
}

struct Scanner<'a> {
    rest: &'a str,
    env: &'a [String],
}

impl Scanner<'_> {
    fn take(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        self.rest = characters.as_str();
        Some(character)
    }

    /// Expands up to `end`, or to the end of the word.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        while let Some(character) = self.take() {
            match character {
                close if Some(close) == end => return Ok(out),
                '\'' => loop {
                    match self.take() {
                        Some('\'') => break,
                        Some(literal) => out.push(literal),
                        None => return Err("a ' is not closed".to_owned()),
                    }
                },
                '"' => self.double_quoted(&mut out)?,
                '\\' => out.extend(self.take()),
                '$' => out.push_str(&self.variable()?),
                other => out.push(other),
            }
        }
        match end {
            Some(end) => Err(format!("a {end} is missing")),
            None => Ok(out),
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.take() {
                Some('"') => return Ok(()),
                Some('\\') => match self.take() {
                    Some(escaped @ ('"' | '$' | '\\')) => out.push(escaped),
                    Some(other) => out.extend(['\\', other]),
                    None => return Err("a \" is not closed".to_owned()),
                },
                Some('$') => out.push_str(&self.variable()?),
                Some(other) => out.push(other),
                None => return Err("a \" is not closed".to_owned()),
            }
        }
    }

    /// What follows a `$`.
    fn variable(&mut self) -> Result<String, String> {
        if !self.rest.starts_with('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        self.take();
        let name = self.name();
        if name.is_empty() {
            return Err("${ without a name".to_owned());
        }
        let value = self.value(&name);
        let mut operator = self.take();
        let set = match operator {
            Some(':') => {
                operator = self.take();
                value.clone().filter(|value| !value.is_empty())
            }
            _ => value.clone(),
        };
        match operator {
            Some('}') => Ok(value.unwrap_or_default()),
            Some('-') => {
                let word = self.until(Some('}'))?;
                Ok(set.unwrap_or(word))
            }
            Some('+') => {
                let word = self.until(Some('}'))?;
                Ok(set.map(|_| word).unwrap_or_default())
            }
            Some('?') => {
                let word = self.until(Some('}'))?;
                set.ok_or_else(|| format!("{name}: {}", if word.is_empty() { "not set" } else { &word }))
            }
            _ => Err(format!("the modifier of ${{{name}}} is not supported")),
        }
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let end = match self.rest.as_bytes().first() {
            // `$1` is one digit, as in a shell.
            Some(b'0'..=b'9') => 1,
            _ => end,
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn value(&self, name: &str) -> Option<String> {
        let entries = self.env.iter().filter_map(|entry| entry.split_once('='));
        entries.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_at_blanks_outside_of_quotes() {
        assert_eq!(split(r#"a=b c="d e" f='g "h' i\ j"#).unwrap(), ["a=b", r#"c="d e""#, r#"f='g "h'"#, r"i\ j"]);
        assert_eq!(split("  ").unwrap(), [""; 0]);
        split("a \"b").unwrap_err();
    }

    #[test]
    fn quotes_escapes_and_variables() {
        let env = ["A=1".to_owned(), "E=".to_owned(), "A=2".to_owned()];
        for (word, want) in [
            ("$A", "2"),
            ("${A}x", "2x"),
            ("$AB", ""),
            ("'$A'", "$A"),
            ("\"$A b\"", "2 b"),
            (r"\$A", "$A"),
            (r#""\$A \x \"""#, r#"$A \x ""#),
            ("${N:-d $A}", "d 2"),
            ("${E:-d}", "d"),
            ("${E-d}", ""),
            ("${A:+y}", "y"),
            ("${E:+y}", ""),
            ("a$", "a$"),
            ("é$A", "é2"),
        ] {
            assert_eq!(expand(word, &env).unwrap(), want, "{word}");
        }
        for bad in ["${A", "${}", "${A:", "${A%x}", "'a", "\"a", "${N:?gone}"] {
            expand(bad, &env).expect_err(bad);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}|[$\\{\\}\"'\\\\:+?a -]{0,30}") {
            let _ = split(&text);
            let _ = expand(&text, &["a=b".to_owned()]);
        }
    }
}
