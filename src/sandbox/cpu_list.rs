//! Lists of processor or memory node numbers: `0-2,5` (cpuset(7), "List format").

use std::collections::BTreeSet;

/// More than any kernel has processors (`NR_CPUS`).
const HIGHEST: u32 = 8191;

/// The numbers of a list; `None` when the text is no list. An empty text is the empty list.
pub fn parse(text: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    if text.is_empty() {
        return Some(numbers);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|&number| number <= HIGHEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_nonsense_is_refused() {
        assert_eq!(parse("0-2,5").unwrap(), BTreeSet::from([0, 1, 2, 5]));
        assert_eq!(parse("3").unwrap(), BTreeSet::from([3]));
        assert!(parse("").unwrap().is_empty());
        for text in [",", "1,", "-1", "1-", "2-1", "a", "1-2-3", "0-99999999", " 1", "+1", "1, 2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
