//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, 11.6.1; distribution's token specification).

/// What a registry wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// Reads one header value, which can hold several challenges; Bearer is preferred.
    pub(crate) fn parse(header: &str) -> Option<Challenge> {
        let mut basic = false;
        for (scheme, parameters) in split(header) {
            let find = |name: &str| {
                let mut fitting = parameters.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
                fitting.next().map(|(_, value)| value.clone()).unwrap_or_default()
            };
            if scheme.eq_ignore_ascii_case("bearer") && !find("realm").is_empty() {
                return Some(Challenge::Bearer {
                    realm: find("realm"),
                    service: find("service"),
                    scope: find("scope"),
                });
            }
            basic |= scheme.eq_ignore_ascii_case("basic");
        }
        basic.then_some(Challenge::Basic)
    }
}

type Parameters = Vec<(String, String)>;

/// Schemes with their parameters. A word that is not followed by `=` begins a new challenge.
fn split(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        if end == 0 {
            return challenges;
        }
        let (word, tail) = rest.split_at(end);
        match tail.trim_start().strip_prefix('=') {
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = tail;
            }
            Some(tail) => {
                let (value, tail) = value(tail.trim_start());
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = tail;
            }
        }
    }
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
    }

    #[test]
    fn usual_and_unusual_headers() {
        for (header, want) in [
            ("Basic realm=\"r\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.test/token\",service=\"reg\",scope=\"repository:a/b:pull,push\"",
                bearer("https://auth.test/token", "reg", "repository:a/b:pull,push"),
            ),
            ("bearer realm=http://h/t , service = s", bearer("http://h/t", "s", "")),
            ("Basic realm=\"x\", Bearer realm=\"https://t\"", bearer("https://t", "", "")),
            ("Bearer realm=\"a\\\"b\"", bearer("a\"b", "", "")),
            ("Bearer realm=\"unclosed", bearer("unclosed", "", "")),
            ("Bearer service=\"s\"", None),
            ("Negotiate abc==", None),
            ("", None),
            (",,, =", None),
        ] {
            assert_eq!(Challenge::parse(header), want, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(header in "\\PC{0,60}|[Beare realm=\",\\\\]{0,40}") {
            let _ = Challenge::parse(&header);
        }
    }
}
