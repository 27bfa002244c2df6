//! Names of containers: the rule for them, and names made up as `adjective_surname`.

use rand::{Rng, RngExt};

use crate::id::Id;

/// Bytes; leaves room for what is put around a name in a file name.
const LONGEST: usize = 200;

/// A name that Docker would not take either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Characters, or less than two of them.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Characters(String),
    /// Too long for a file name.
    #[error("Invalid container name ({0}…), names have at most 200 bytes")]
    Long(String),
}

/// Whether a name (without a leading slash) can be a container's.
pub fn validate(name: &str) -> Result<(), InvalidName> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.len() > 1 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !first || !rest {
        return Err(InvalidName::Characters(name.chars().take(LONGEST).collect()));
    }
    if name.len() > LONGEST {
        return Err(InvalidName::Long(name.chars().take(40).collect()));
    }
    Ok(())
}

/// A name made up; after the first `attempt` (0) a digit is added, since the plain one was taken.
fn generate(attempt: u32) -> String {
    generate_with(&mut rand::rng(), attempt)
}

/// Names to try in turn for a container that nobody named: made-up ones, at last its short id, which nobody has.
pub fn candidates(id: &Id) -> impl Iterator<Item = String> {
    (0..6).map(generate).chain([id.short().to_owned()])
}

fn generate_with(random: &mut impl Rng, attempt: u32) -> String {
    let adjective = ADJECTIVES[random.random_range(0..ADJECTIVES.len())];
    let surname = SURNAMES[random.random_range(0..SURNAMES.len())];
    match attempt {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", random.random_range(0..10_u8)),
    }
}

const ADJECTIVES: [&str; 96] = [
    "able", "agile", "airy", "amber", "ample", "apt", "ardent", "avid", "balmy", "bold", "brave", "breezy", "bright",
    "brisk", "calm", "candid", "careful", "cheerful", "civil", "clear", "clever", "cosy", "crisp", "curious", "daring",
    "deft", "diligent", "dreamy", "eager", "earnest", "easy", "elated", "even", "fair", "fearless", "fluent", "fond",
    "frank", "fresh", "gentle", "glad", "golden", "graceful", "grand", "handy", "happy", "hardy", "hearty", "honest",
    "humble", "jolly", "joyful", "keen", "kind", "light", "lively", "loyal", "lucid", "mellow", "merry", "mild",
    "modest", "neat", "nimble", "noble", "open", "patient", "placid", "plucky", "polite", "prompt", "proud", "quick",
    "quiet", "rapid", "ready", "robust", "rosy", "serene", "sharp", "silent", "sincere", "smooth", "snug", "sober",
    "solid", "spry", "steady", "sunny", "swift", "tender", "tidy", "upbeat", "vivid", "warm", "witty",
];

/// People whose work computing, mathematics and the sciences stand on.
const SURNAMES: [&str; 112] = [
    "abel",
    "agnesi",
    "aiken",
    "ampere",
    "anning",
    "archimedes",
    "babbage",
    "bardeen",
    "bell",
    "bernoulli",
    "bohr",
    "boole",
    "borg",
    "brahe",
    "burnell",
    "cannon",
    "cantor",
    "carson",
    "cauchy",
    "cavendish",
    "cerf",
    "chandrasekhar",
    "chebyshev",
    "church",
    "clarke",
    "codd",
    "copernicus",
    "cori",
    "coulomb",
    "curie",
    "dalton",
    "darwin",
    "descartes",
    "dijkstra",
    "dirac",
    "eckert",
    "elion",
    "engelbart",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fisher",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "godel",
    "hamilton",
    "hamming",
    "hawking",
    "heisenberg",
    "hertz",
    "hilbert",
    "hodgkin",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jacobi",
    "jemison",
    "johnson",
    "joule",
    "kepler",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "lavoisier",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "lovell",
    "maxwell",
    "mcclintock",
    "meitner",
    "mendel",
    "mirzakhani",
    "napier",
    "newton",
    "nightingale",
    "noether",
    "pascal",
    "pasteur",
    "payne",
    "perlman",
    "planck",
    "poincare",
    "ramanujan",
    "ride",
    "riemann",
    "ritchie",
    "rubin",
    "sanger",
    "shannon",
    "somerville",
    "stokes",
    "tesla",
    "thompson",
    "turing",
    "volta",
    "wiles",
    "wing",
    "wu",
    "yalow",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_rule_is_dockers() {
        for name in ["ab", "a1", "1a", "web-1", "a.b_c-d", "A0", &"x".repeat(200)] {
            assert_eq!(validate(name), Ok(()), "{name}");
        }
        for name in ["", "a", "_a", "-a", ".a", "a b", "a/b", "/ab", "é1", "aé", "a\n", "..", &"x".repeat(201)] {
            assert!(validate(name).is_err(), "{name}");
        }
        assert_eq!(
            validate("a b").unwrap_err().to_string(),
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn generated_names_are_valid_and_many() {
        let names: BTreeSet<String> = (0..500).map(|_| generate(0)).collect();
        assert!(names.len() > 400, "{}", names.len());
        for name in &names {
            assert_eq!(validate(name), Ok(()), "{name}");
            assert_eq!(name.split('_').count(), 2);
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
        assert!(generate(1).ends_with(|last: char| last.is_ascii_digit()));
    }

    #[test]
    fn the_last_candidate_is_the_short_id() {
        let id = Id::random().unwrap();
        let candidates: Vec<String> = candidates(&id).collect();
        assert_eq!(candidates.len(), 7);
        assert_eq!(candidates[6], id.short());
        assert!(candidates.iter().all(|name| validate(name).is_ok()));
    }

    #[test]
    fn the_lists_have_no_doubles() {
        assert_eq!(ADJECTIVES.iter().collect::<BTreeSet<_>>().len(), ADJECTIVES.len());
        assert_eq!(SURNAMES.iter().collect::<BTreeSet<_>>().len(), SURNAMES.len());
    }
}
