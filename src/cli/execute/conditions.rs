//! The conditions of `ps --filter`.

use std::collections::BTreeSet;

use regex_lite::Regex;
use sbx_engine::{Engine, Listed};
use sbx_sandbox::state::Status;
use sbx_sandbox::timestamp::Timestamp;

use super::Fault;
use super::listing::{network_of, ports_of};
use super::status::health_word;
use crate::filter::Filters;

const KNOWN: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: [&str; 7] = ["created", "running", "paused", "restarting", "exited", "removing", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// Conditions that have been read and whose names have been looked up.
pub(super) struct Conditions<'a> {
    filters: &'a Filters,
    names: Vec<Regex>,
    ids: Vec<Regex>,
    exited: Vec<i32>,
    /// Ids of images; `None` where there is no such condition.
    ancestors: Option<BTreeSet<String>>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    published: BTreeSet<(u16, String)>,
    exposed: BTreeSet<(u16, String)>,
    bridge: Option<String>,
}

impl<'a> Conditions<'a> {
    /// Reads the conditions and looks up the images and containers that they name.
    pub(super) fn read(engine: &Engine, filters: &'a Filters) -> Result<Self, Fault> {
        let mut read = Self::without_names(filters)?;
        if !filters.values("ancestor").is_empty() {
            let store = engine.images()?;
            let found = filters.values("ancestor").iter().filter_map(|name| store.resolve(name).ok());
            read.ancestors = Some(found.map(|image| image.id.to_string()).collect());
        }
        let created = |key: &str| {
            let name = filters.values(key).last();
            name.map(|name| Ok::<_, Fault>(engine.spec(&engine.find(name)?)?.created)).transpose()
        };
        read.before = created("before")?;
        read.since = created("since")?;
        if !filters.values("network").is_empty() {
            read.bridge = engine.bridge_id();
        }
        Ok(read)
    }

    fn without_names(filters: &'a Filters) -> Result<Self, Fault> {
        filters.only(&KNOWN)?;
        for (key, words) in [("status", &STATUSES[..]), ("health", &HEALTHS[..])] {
            if let Some(wrong) = filters.values(key).iter().find(|value| !words.contains(&value.as_str())) {
                return Err(invalid(key, wrong));
            }
        }
        let exited: Result<Vec<i32>, Fault> =
            filters.values("exited").iter().map(|code| code.parse().map_err(|_| invalid("exited", code))).collect();
        Ok(Self {
            filters,
            names: patterns(filters, "name")?,
            ids: patterns(filters, "id")?,
            exited: exited?,
            ancestors: None,
            before: None,
            since: None,
            published: ports(filters, "publish")?,
            exposed: ports(filters, "expose")?,
            bridge: None,
        })
    }

    /// Whether a condition is about containers that do not run, which then are shown without `--all`.
    pub(super) fn show_all(&self) -> bool {
        !self.filters.values("status").is_empty()
    }

    /// Whether a container meets them all.
    pub(super) fn allow(&self, listed: &Listed) -> Result<bool, Fault> {
        let Listed { spec, state, .. } = listed;
        let slashed = format!("/{}", spec.name);
        let named = self.names.iter().any(|name| name.is_match(&spec.name) || name.is_match(&slashed));
        let health = state.health.as_ref().map_or("none", |health| health_word(health.status));
        let isolation = serde_json::to_value(spec.isolation.isolation).unwrap_or_default();
        Ok((self.names.is_empty() || named)
            && (self.ids.is_empty() || self.ids.iter().any(|id| id.is_match(spec.id.as_str())))
            && self.filters.switch("is-task")? != Some(true)
            && self.filters.allow_labels(&spec.config.labels)
            && self.filters.allows("isolation", isolation.as_str().unwrap_or_default())
            && self.filters.allows("status", state.status.as_str())
            && self.filters.allows("health", health)
            && self.before.is_none_or(|moment| spec.created < moment)
            && self.since.is_none_or(|moment| spec.created > moment)
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&spec.image.id))
            && self.allow_exit(listed)
            && self.allow_volumes(listed)
            && self.allow_network(listed)
            && self.allow_ports(listed))
    }

    fn allow_exit(&self, listed: &Listed) -> bool {
        let ended = listed.state.status == Status::Exited;
        self.exited.is_empty() || (ended && self.exited.contains(&listed.state.exit_code))
    }

    fn allow_volumes(&self, listed: &Listed) -> bool {
        let wanted = self.filters.values("volume");
        let has = |value: &String| {
            listed.spec.mounts.iter().any(|mount| {
                let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
                name == value || &mount.destination == value
            })
        };
        wanted.is_empty() || wanted.iter().any(has)
    }

    fn allow_network(&self, listed: &Listed) -> bool {
        let wanted = self.filters.values("network");
        let own = network_of(&listed.spec);
        let is_bridge = |value: &str| {
            own.as_deref() == Some("bridge")
                && !value.is_empty()
                && self.bridge.as_ref().is_some_and(|id| id.starts_with(value))
        };
        wanted.is_empty() || wanted.iter().any(|value| own.as_ref() == Some(value) || is_bridge(value))
    }

    fn allow_ports(&self, listed: &Listed) -> bool {
        if self.published.is_empty() && self.exposed.is_empty() {
            return true;
        }
        ports_of(listed).into_iter().any(|port| {
            let public = port.address.is_some() && self.published.contains(&(port.public, port.protocol.clone()));
            public || self.exposed.contains(&(port.private, port.protocol))
        })
    }
}

fn invalid(key: &str, value: &str) -> Fault {
    Fault::plain(format!("invalid filter '{key}={value}'"))
}

fn patterns(filters: &Filters, key: &str) -> Result<Vec<Regex>, Fault> {
    let read = |text: &String| Regex::new(text).map_err(|error| Fault::plain(format!("{key}={text}: {error}")));
    filters.values(key).iter().map(read).collect()
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(filters: &Filters, key: &str) -> Result<BTreeSet<(u16, String)>, Fault> {
    let mut all = BTreeSet::new();
    for value in filters.values(key) {
        if value.contains(':') {
            return Err(Fault::plain(format!("filter for '{key}' should not contain ':': {value}")));
        }
        let (numbers, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let bounds = (first.parse::<u16>(), last.parse::<u16>());
        let (Ok(first), Ok(last)) = bounds else {
            return Err(Fault::plain(format!("error while looking up for {key} {value}: invalid port")));
        };
        all.extend((first..=last).map(|port| (port, protocol.to_ascii_lowercase())));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(given: &[&str]) -> Filters {
        Filters::parse(&given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn fault(given: &[&str]) -> String {
        let filters = filters(given);
        Conditions::without_names(&filters).err().map(|fault| fault.message).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_a_condition_is_named() {
        assert_eq!(fault(&["nonsense=1"]), "invalid filter 'nonsense'");
        assert_eq!(fault(&["status=happy"]), "invalid filter 'status=happy'");
        assert_eq!(fault(&["health=well"]), "invalid filter 'health=well'");
        assert_eq!(fault(&["exited=x"]), "invalid filter 'exited=x'");
        assert_eq!(fault(&["publish=80:80"]), "filter for 'publish' should not contain ':': 80:80");
        assert!(fault(&["expose=x"]).contains("expose x"));
        assert!(fault(&["name=("]).starts_with("name=("));
        assert_eq!(fault(&["status=exited", "health=none", "exited=0", "publish=80/udp"]), "");
    }

    #[test]
    fn ranges_of_ports() {
        let read = ports(&filters(&["expose=80-82/udp", "expose=90"]), "expose").unwrap_or_default();
        let text: Vec<String> = read.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect();
        assert_eq!(text, ["80/udp", "81/udp", "82/udp", "90/tcp"]);
    }
}
