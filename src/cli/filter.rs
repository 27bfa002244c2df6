//! `--filter key=value`: conditions on a list. Values of one key are alternatives, keys add up.

use std::collections::BTreeMap;

/// Conditions by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the values of `--filter`.
    ///
    /// # Errors
    /// A condition without `=`.
    pub fn parse(given: &[String]) -> Result<Self, String> {
        let mut filters = Self::default();
        for text in given {
            if let Some((key, value)) = parse_condition(text)? {
                let values = filters.0.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        Ok(filters)
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The alternatives of a key; none means that any value does.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Keys with their alternatives.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// Whether every key is one of these.
    ///
    /// # Errors
    /// Docker's sentence on the first that is not.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(format!("invalid filter '{key}'")),
            None => Ok(()),
        }
    }

    /// Whether `value` is one of the alternatives of `key`, or the key has none.
    pub fn allows(&self, key: &str, value: &str) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|wanted| wanted == value)
    }

    /// Whether labels have all that `label` asks for (`name` or `name=value`) and nothing that `label!` does.
    pub fn allow_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }

    /// A yes-or-no condition.
    ///
    /// # Errors
    /// A value that is neither, or both.
    pub fn switch(&self, key: &str) -> Result<Option<bool>, String> {
        let mut found = None;
        for value in self.values(key) {
            let on = match value.as_str() {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => return Err(format!("invalid filter '{key}={value}'")),
            };
            if found.is_some_and(|other| other != on) {
                return Err(format!("invalid filter '{key}': it cannot be both true and false"));
            }
            found = Some(on);
        }
        Ok(found)
    }
}

fn parse_condition(text: &str) -> Result<Option<(String, String)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok(Some((key.trim().to_ascii_lowercase(), value.trim().to_owned())))
}

/// A check of one value of `--filter`.
pub(crate) fn check_condition(text: &str) -> Result<(), String> {
    parse_condition(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(given: &[&str]) -> Filters {
        Filters::parse(&given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn values_are_alternatives_and_labels_add_up() {
        let filters = filters(&["status=exited", "STATUS = running", "label=a", "label=b=c", ""]);
        assert!(
            filters.allows("status", "running") && !filters.allows("status", "paused") && filters.allows("name", "x")
        );
        let label = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert!(filters.allow_labels(&label(&[("a", ""), ("b", "c")])));
        assert!(!filters.allow_labels(&label(&[("a", ""), ("b", "d")])));
        assert_eq!(filters.only(&["status"]).unwrap_err(), "invalid filter 'label'");
    }

    #[test]
    fn faults() {
        assert!(check_condition("x").is_err());
        assert_eq!(filters(&["dangling=true"]).switch("dangling"), Ok(Some(true)));
        assert!(filters(&["dangling=maybe"]).switch("dangling").is_err());
        assert!(filters(&["dangling=0", "dangling=1"]).switch("dangling").is_err());
    }
}
