//! Extra attributes of a container's log entries: `--log-opt labels`, `labels-regex`, `env`, `env-regex` and `tag`.
//!
//! They are Docker's (daemon/logger/loginfo.go, daemon/logger/loggerutils/log_tag.go): labels and variables by name or by
//! a regular expression on the name, and a tag that is a Go template of which the fields below are understood.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::spec::SandboxSpec;

/// The attributes of every log entry of a container, by name.
pub fn log_attributes(spec: &SandboxSpec) -> Result<BTreeMap<String, String>, String> {
    let options = &spec.host_config.log_config.config;
    let env = |entry: &String| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env: BTreeMap<String, String> = spec.config.env.iter().filter_map(env).collect();
    let mut attributes = BTreeMap::new();
    for (option, all) in [("labels", &spec.config.labels), ("env", &env)] {
        let names: Vec<&str> = options.get(option).map(|list| list.split(',').collect()).unwrap_or_default();
        let pattern = options.get(&format!("{option}-regex")).filter(|pattern| !pattern.is_empty());
        let pattern = pattern.map(|pattern| compile(option, pattern)).transpose()?;
        let wanted = |name: &str| names.contains(&name) || pattern.as_ref().is_some_and(|regex| regex.is_match(name));
        attributes
            .extend(all.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| (name.clone(), value.clone())));
    }
    if let Some(template) = options.get("tag").filter(|template| !template.is_empty()) {
        attributes.insert("tag".to_owned(), tag(template, spec)?);
    }
    Ok(attributes)
}

fn compile(option: &str, pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| format!("invalid value for {option}-regex: {pattern:?}: {error}"))
}

/// Replaces the fields of a tag template.
fn tag(template: &str, spec: &SandboxSpec) -> Result<String, String> {
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, field)) = rest.split_once("{{") {
        let (field, after) = field
            .split_once("}}")
            .ok_or_else(|| format!("invalid value for tag: {template:?}: an action is not closed by }}}}"))?;
        tag.push_str(before);
        tag.push_str(&value(field.trim(), spec).ok_or_else(|| {
            format!(
                "invalid value for tag: {template:?}: {{{{{field}}}}} is not known; use .ID, .FullID, .Name, .ImageID, \
                 .ImageFullID, .ImageName or .DaemonName"
            )
        })?);
        rest = after;
    }
    tag.push_str(rest);
    Ok(tag)
}

fn value(field: &str, spec: &SandboxSpec) -> Option<String> {
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect();
    Some(match field {
        ".ID" => short(spec.id.as_str()),
        ".FullID" => spec.id.to_string(),
        ".Name" => spec.name.clone(),
        ".ImageID" => short(&spec.image.id),
        ".ImageFullID" => spec.image.id.clone(),
        ".ImageName" => spec.config.image.clone(),
        ".DaemonName" => "sbx".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn with(options: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        let mut spec = testing::spec("web");
        spec.config.env = vec!["PATH=/bin".to_owned(), "APP_A=1".to_owned(), "APP_B=2=3".to_owned()];
        spec.config.labels = [("team", "x"), ("tier", "y")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        spec.host_config.log_config.config =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        log_attributes(&spec)
    }

    #[test]
    fn names_and_patterns_choose_labels_and_variables() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(with(&[]), Ok(BTreeMap::new()));
        assert_eq!(with(&[("labels", "team,none"), ("env", "APP_B")]), Ok(map(&[("team", "x"), ("APP_B", "2=3")])));
        let by_pattern = with(&[("labels-regex", "^t"), ("env-regex", "^APP_")]);
        assert_eq!(by_pattern, Ok(map(&[("team", "x"), ("tier", "y"), ("APP_A", "1"), ("APP_B", "2=3")])));
        assert!(with(&[("env-regex", "(")]).unwrap_err().contains("env-regex"));
    }

    #[test]
    fn a_tag_is_filled_in() {
        assert_eq!(with(&[("tag", "a/{{.Name}}/{{ .DaemonName }}")]).unwrap()["tag"], "a/web/sbx");
        assert_eq!(with(&[("tag", "{{.ID}}")]).unwrap()["tag"].len(), 12);
        assert!(with(&[("tag", "{{.Nothing}}")]).unwrap_err().contains("{{.Nothing}} is not known"));
        assert!(with(&[("tag", "{{.Name")]).unwrap_err().contains("not closed"));
    }
}
