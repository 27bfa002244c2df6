//! Names with wildcards, as `images REPOSITORY[:TAG]` takes them.

/// Whether a name fits a pattern, by the rules of Go's `path.Match`: `*` and `?` stand for anything but a slash, `[a-z]`
/// and `[^a-z]` for one character, a backslash takes the next character as it is. A pattern that cannot be read fits
/// nothing.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Places in the pattern that are reached with what was read of the name: no pattern costs more than its length.
    let mut places = closure(&pattern, vec![0]);
    for letter in name {
        let next = places.iter().filter_map(|place| step(&pattern, *place, letter)).collect();
        places = closure(&pattern, next);
    }
    places.contains(&pattern.len())
}

/// A star may also stand for nothing.
fn closure(pattern: &[char], mut places: Vec<usize>) -> Vec<usize> {
    let mut index = 0;
    while let Some(place) = places.get(index).copied() {
        if pattern.get(place) == Some(&'*') {
            places.push(place + 1);
        }
        index += 1;
    }
    places.sort_unstable();
    places.dedup();
    places
}

fn step(pattern: &[char], place: usize, letter: char) -> Option<usize> {
    match pattern.get(place)? {
        '*' => (letter != '/').then_some(place),
        '?' => (letter != '/').then_some(place + 1),
        '\\' => (pattern.get(place + 1) == Some(&letter)).then_some(place + 2),
        '[' => class(pattern, place + 1, letter),
        plain => (*plain == letter).then_some(place + 1),
    }
}

/// The place after a class that has the letter.
fn class(pattern: &[char], mut place: usize, letter: char) -> Option<usize> {
    let negated = pattern.get(place) == Some(&'^');
    place += usize::from(negated);
    let mut found = false;
    let start = place;
    let read = |at: usize| match pattern.get(at)? {
        '\\' => Some((*pattern.get(at + 1)?, at + 2)),
        plain => Some((*plain, at + 1)),
    };
    while pattern.get(place) != Some(&']') || place == start {
        let (low, after) = read(place)?;
        let (high, after) = if pattern.get(after) == Some(&'-') { read(after + 1)? } else { (low, after) };
        found |= (low..=high).contains(&letter);
        place = after;
    }
    (found != negated).then_some(place + 1)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn wildcards_stop_at_slashes() {
        for (pattern, name) in [
            ("busybox", "busybox"),
            ("b*x", "busybox"),
            ("*", "busybox:1"),
            ("*/*", "team/app"),
            ("t[a-f]am/?pp", "team/app"),
            ("[^x]usybox", "busybox"),
            ("a\\*", "a*"),
            ("***a", "bca"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", "team/app"),
            ("b?", "busybox"),
            ("[^b]usybox", "busybox"),
            ("a\\*", "ab"),
            ("[a", "a"),
            ("", "a"),
            ("a", ""),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        assert!(!fits(&"*a".repeat(200), &"a".repeat(150)), "and it ends");
    }
}
