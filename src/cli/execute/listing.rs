//! `ps` and `port`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sbx_engine::{Engine, Listed};
use sbx_sandbox::spec::{MountKind, MountOrigin, SandboxSpec};
use sbx_sandbox::timestamp::Timestamp;

use super::conditions::Conditions;
use super::{Fault, Outcome, print, status, tell};
use crate::command::{ListContainers, Port};
use crate::rows::{CONTAINERS, CONTAINERS_WITH_SIZE, ContainerRow, PortRow};
use crate::table::{Style, render, shows};

/// `ps`.
pub(super) fn list(engine: &Engine, command: &ListContainers) -> Outcome {
    let conditions = Conditions::read(engine, &command.filters)?;
    let all = command.all || conditions.show_all();
    let mut chosen = Vec::new();
    for listed in engine.list()? {
        if command.last.is_some_and(|most| chosen.len() >= most) {
            break;
        }
        if (all || listed.state.status.is_active()) && conditions.allow(&listed)? {
            chosen.push(listed);
        }
    }
    let custom = command.format.as_deref().filter(|format| *format != "table");
    if custom.is_some() && command.quiet {
        tell("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let format = match (custom, command.quiet, command.size) {
        (_, true, _) => Some("{{.ID}}"),
        (Some(custom), ..) => Some(custom),
        (None, false, true) => Some(CONTAINERS_WITH_SIZE),
        (None, false, false) => None,
    };
    let sized = !command.quiet && (command.size || shows(format, "Size"));
    let now = Timestamp::now();
    let image_sizes = if sized { image_sizes(engine)? } else { BTreeMap::new() };
    let mut rows = Vec::with_capacity(chosen.len());
    for listed in &chosen {
        let mut row = row(listed, now);
        if sized {
            row.size = engine.size(&listed.spec.id)?;
            row.virtual_size = row.size + image_sizes.get(&listed.spec.image.id).copied().unwrap_or(0);
        }
        rows.push(row);
    }
    let style = Style { truncate: !command.no_trunc, human: true, now: now.unix_seconds() };
    print(&render(&CONTAINERS, &rows, format, style).map_err(|error| Fault::plain(error.to_string()))?)
}

fn image_sizes(engine: &Engine) -> Result<BTreeMap<String, u64>, Fault> {
    let images = engine.images()?.list().map_err(sbx_engine::Error::from)?;
    Ok(images.into_iter().map(|image| (image.id.to_string(), image.size)).collect())
}

fn row(listed: &Listed, now: Timestamp) -> ContainerRow {
    let Listed { spec, state, .. } = listed;
    let mounts: Vec<_> = spec.mounts.iter().filter(|mount| mount.origin != MountOrigin::Tmpfs).collect();
    let name = |mount: &&sbx_sandbox::spec::MountPoint| match mount.kind {
        MountKind::Volume | MountKind::Image => mount.name.clone(),
        MountKind::Bind | MountKind::Tmpfs => mount.source.clone(),
    };
    ContainerRow {
        id: spec.id.to_string(),
        names: vec![spec.name.clone()],
        image: spec.config.image.clone(),
        image_id: spec.image.id.clone(),
        command: spec.args().join(" "),
        created: spec.created.unix_seconds(),
        ports: ports_of(listed),
        state: state.status.as_str().to_owned(),
        status: status::text(state, now),
        size: 0,
        virtual_size: 0,
        labels: spec.config.labels.clone(),
        mounts: mounts.iter().map(name).collect(),
        local_volumes: mounts.iter().filter(|mount| mount.kind == MountKind::Volume).count(),
        networks: network_of(spec).into_iter().collect(),
        platform: spec.image.platform.clone(),
    }
}

/// The network that a container is on; `None` where it shares another container's.
pub(super) fn network_of(spec: &SandboxSpec) -> Option<String> {
    match spec.host_config.network_mode.as_str() {
        "" | "default" => Some("bridge".to_owned()),
        mode if mode.starts_with("container:") => None,
        mode => Some(mode.to_owned()),
    }
}

/// Published and exposed ports of a container that is on the bridge now.
pub(super) fn ports_of(listed: &Listed) -> Vec<PortRow> {
    if listed.network.endpoint.is_none() {
        return Vec::new();
    }
    let published = listed.network.ports.iter().map(|port| PortRow {
        address: Some(port.host_address.to_string()),
        private: port.container_port,
        public: port.host_port,
        protocol: port.protocol.as_str().to_owned(),
    });
    let mut rows: Vec<PortRow> = published.collect();
    for exposed in listed.spec.config.exposed_ports.keys() {
        let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let Ok(private) = number.parse::<u16>() else { continue };
        if !rows.iter().any(|row| row.private == private && row.protocol == protocol) {
            rows.push(PortRow { address: None, private, public: 0, protocol: protocol.to_owned() });
        }
    }
    rows
}

/// `port`.
pub(super) fn port(engine: &Engine, command: &Port) -> Outcome {
    let listed = engine.look_at(&engine.find(&command.container)?)?;
    let published = published(ports_of(&listed));
    let Some((port, protocol)) = &command.private_port else {
        let lines = published.iter().map(|row| format!("{}/{} -> {}\n", row.private, row.protocol, host_side(row)));
        return print(&lines.collect::<String>());
    };
    let wanted = published.iter().filter(|row| row.private == *port && &row.protocol == protocol);
    let lines: String = wanted.map(|row| host_side(row) + "\n").collect();
    if lines.is_empty() {
        let message = format!("Error: No public port '{port}/{protocol}' published for {}", command.container);
        return Err(Fault::plain(message));
    }
    print(&lines)
}

/// In the order of `port`: by port, IPv4 before IPv6.
fn published(rows: Vec<PortRow>) -> Vec<PortRow> {
    let mut rows: Vec<PortRow> = rows.into_iter().filter(|row| row.address.is_some()).collect();
    rows.sort_by_key(|row| {
        let is_v6 = row.address.as_deref().is_some_and(|address| address.contains(':'));
        (row.private, row.protocol.clone(), is_v6, row.address.clone(), row.public)
    });
    rows
}

fn host_side(row: &PortRow) -> String {
    let address = row.address.as_deref().unwrap_or_default();
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{}", row.public),
        _ => format!("{address}:{}", row.public),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_in_order_and_ipv6_has_brackets() {
        let row = |address: Option<&str>, private, public| PortRow {
            address: address.map(str::to_owned),
            private,
            public,
            protocol: "tcp".to_owned(),
        };
        let rows = published(vec![
            row(Some("::"), 80, 8080),
            row(None, 90, 0),
            row(Some("0.0.0.0"), 443, 8443),
            row(Some("0.0.0.0"), 80, 8080),
        ]);
        let lines: Vec<String> = rows.iter().map(|row| format!("{} {}", row.private, host_side(row))).collect();
        assert_eq!(lines, ["80 0.0.0.0:8080", "80 [::]:8080", "443 0.0.0.0:8443"]);
    }
}
