//! The rows of `ps`, `images`, `history`, `volume ls` and `stats`, and their columns.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    quote::quote,
    table::{Column, Sheet, Style},
    units::{binary_size, human_duration, human_size, rfc3339, table_size, table_time},
};

const NOT_KNOWN: &str = "N/A";
const NONE: &str = "<none>";

/// A container in `ps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRow {
    /// 64 hex digits.
    pub id: String,
    /// Without the slash.
    pub names: Vec<String>,
    /// As the user named it.
    pub image: String,
    /// `sha256:…`
    pub image_id: String,
    /// Program and arguments, with blanks between.
    pub command: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Exposed and published.
    pub ports: Vec<PortRow>,
    /// `running`, `exited`, …
    pub state: String,
    /// `Up 2 minutes (healthy)`
    pub status: String,
    /// Bytes of the writable layer.
    pub size: u64,
    /// Bytes of all layers; 0 where it was not asked for.
    pub virtual_size: u64,
    /// Metadata.
    pub labels: BTreeMap<String, String>,
    /// Volume names and host paths.
    pub mounts: Vec<String>,
    /// How many of these are volumes.
    pub local_volumes: usize,
    /// Names.
    pub networks: Vec<String>,
    /// `linux/amd64`
    pub platform: String,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRow {
    /// Address on the host; `None` where it is exposed only.
    pub address: Option<String>,
    /// In the container.
    pub private: u16,
    /// On the host.
    pub public: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
}

fn short_id(id: &str, style: Style) -> String {
    if !style.truncate {
        return id.to_owned();
    }
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn age(created: i64, style: Style) -> String {
    let seconds = u64::try_from(style.now - created).unwrap_or(0);
    format!("{} ago", human_duration(Duration::from_secs(seconds)))
}

fn labels_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn image_text(row: &ContainerRow, style: Style) -> String {
    if row.image.is_empty() {
        return "<no image>".to_owned();
    }
    if !style.truncate {
        return row.image.clone();
    }
    if short_id(&row.image, style) == short_id(&row.image_id, style) {
        return short_id(&row.image_id, style);
    }
    row.image.split('@').next().unwrap_or(&row.image).to_owned()
}

fn command_text(row: &ContainerRow, style: Style) -> String {
    quote(&if style.truncate { ellipsis(&row.command, 20) } else { row.command.clone() })
}

fn size_text(row: &ContainerRow, _: Style) -> String {
    let size = table_size(row.size);
    if row.virtual_size == 0 { size } else { format!("{size} (virtual {})", table_size(row.virtual_size)) }
}

fn mounts_text(row: &ContainerRow, style: Style) -> String {
    let shown = |name: &String| {
        if style.truncate { ellipsis(name, 15) } else { name.clone() }
    };
    row.mounts.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// `0.0.0.0:8000-8002->8000-8002/tcp, 90/tcp`: ports that follow one another and are published under their own number
/// become a range.
pub fn ports_text(ports: &[PortRow]) -> String {
    struct Range {
        key: (String, String),
        first: u16,
        last: u16,
    }
    fn say(range: &Range) -> String {
        let (address, protocol) = &range.key;
        let numbers =
            if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) };
        match address.as_str() {
            "" => format!("{numbers}/{protocol}"),
            address => format!("{}->{numbers}/{protocol}", host_port(address, &numbers)),
        }
    }
    let mut sorted: Vec<&PortRow> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.private, port.address.clone(), port.public, port.protocol.clone()));
    let (mut closed, mut open, mut mapped) = (Vec::new(), Vec::<Range>::new(), Vec::new());
    for port in sorted {
        let address = port.address.clone().unwrap_or_default();
        if !address.is_empty() && port.public != port.private {
            let host = host_port(&address, &port.public.to_string());
            mapped.push(format!("{host}->{}/{}", port.private, port.protocol));
            continue;
        }
        let key = (address, port.protocol.clone());
        let next = Range { key, first: port.private, last: port.private };
        match open.iter_mut().find(|range| range.key == next.key) {
            Some(range) if range.last.checked_add(1) == Some(port.private) => range.last = port.private,
            Some(range) => {
                closed.push(say(range));
                *range = next;
            }
            None => open.push(next),
        }
    }
    let texts = closed.into_iter().chain(open.iter().map(say)).chain(mapped);
    texts.collect::<Vec<_>>().join(", ")
}

fn host_port(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// `ps`.
pub static CONTAINERS: Sheet<ContainerRow> = Sheet {
    type_name: "*formatter.ContainerContext",
    usual: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    label: Some(|row, name| row.labels.get(name).cloned()),
    columns: &[
        Column { key: "Command", title: "COMMAND", text: command_text },
        Column { key: "CreatedAt", title: "CREATED AT", text: |row, _| table_time(row.created) },
        Column { key: "ID", title: "CONTAINER ID", text: |row, style| short_id(&row.id, style) },
        Column { key: "Image", title: "IMAGE", text: image_text },
        Column { key: "Labels", title: "LABELS", text: |row, _| labels_text(&row.labels) },
        Column { key: "LocalVolumes", title: "LOCAL VOLUMES", text: |row, _| row.local_volumes.to_string() },
        Column { key: "Mounts", title: "MOUNTS", text: mounts_text },
        Column { key: "Names", title: "NAMES", text: |row, _| row.names.join(",") },
        Column { key: "Networks", title: "NETWORKS", text: |row, _| row.networks.join(",") },
        Column { key: "Platform", title: "PLATFORM", text: |row, _| row.platform.clone() },
        Column { key: "Ports", title: "PORTS", text: |row, _| ports_text(&row.ports) },
        Column { key: "RunningFor", title: "CREATED", text: |row, style| age(row.created, style) },
        Column { key: "Size", title: "SIZE", text: size_text },
        Column { key: "State", title: "STATE", text: |row, _| row.state.clone() },
        Column { key: "Status", title: "STATUS", text: |row, _| row.status.clone() },
    ],
};

/// `ps --size`.
pub const CONTAINERS_WITH_SIZE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

/// A name of an image in `images`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRow {
    /// Without tag and digest; empty where it has no name.
    pub repository: String,
    /// Empty where it has none.
    pub tag: String,
    /// Of the manifest; empty where it is not known.
    pub digest: String,
    /// `sha256:…`
    pub id: String,
    /// Seconds since 1970, where it is known.
    pub created: Option<i64>,
    /// Bytes.
    pub size: u64,
    /// How many use it, where it was counted.
    pub containers: Option<usize>,
}

fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

/// `images`.
pub static IMAGES: Sheet<ImageRow> = Sheet {
    type_name: "*formatter.imageContext",
    usual: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}",
    label: None,
    columns: &[
        Column {
            key: "Containers",
            title: "CONTAINERS",
            text: |row, _| row.containers.map_or_else(|| NOT_KNOWN.to_owned(), |count| count.to_string()),
        },
        Column {
            key: "CreatedAt",
            title: "CREATED AT",
            text: |row, _| row.created.map(table_time).unwrap_or_default(),
        },
        Column {
            key: "CreatedSince",
            title: "CREATED",
            text: |row, style| row.created.map(|created| age(created, style)).unwrap_or_default(),
        },
        Column { key: "Digest", title: "DIGEST", text: |row, _| or_none(&row.digest) },
        Column { key: "ID", title: "IMAGE ID", text: |row, style| short_id(&row.id, style) },
        Column { key: "Repository", title: "REPOSITORY", text: |row, _| or_none(&row.repository) },
        Column { key: "SharedSize", title: "SHARED SIZE", text: |_, _| NOT_KNOWN.to_owned() },
        Column { key: "Size", title: "SIZE", text: |row, _| table_size(row.size) },
        Column { key: "Tag", title: "TAG", text: |row, _| or_none(&row.tag) },
        Column { key: "UniqueSize", title: "UNIQUE SIZE", text: |_, _| NOT_KNOWN.to_owned() },
        Column { key: "VirtualSize", title: "SIZE", text: |row, _| human_size(row.size) },
    ],
};

/// `images --digests`.
pub const IMAGES_WITH_DIGEST: &str = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}";

/// A step of an image in `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryRow {
    /// `sha256:…` or `<missing>`.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// What made it.
    pub created_by: String,
    /// Bytes.
    pub size: u64,
    /// What its maker said.
    pub comment: String,
}

fn created_by_text(row: &HistoryRow, style: Style) -> String {
    let text = row.created_by.replace('\t', " ");
    if style.truncate { ellipsis(&text, 45) } else { text }
}

/// `history`.
pub static HISTORY: Sheet<HistoryRow> = Sheet {
    type_name: "*formatter.historyContext",
    usual: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    label: None,
    columns: &[
        Column { key: "Comment", title: "COMMENT", text: |row, _| row.comment.clone() },
        Column { key: "CreatedAt", title: "CREATED AT", text: |row, _| rfc3339(row.created) },
        Column { key: "CreatedBy", title: "CREATED BY", text: created_by_text },
        Column {
            key: "CreatedSince",
            title: "CREATED",
            text: |row, style| {
                if style.human { age(row.created, style) } else { rfc3339(row.created) }
            },
        },
        Column { key: "ID", title: "IMAGE", text: |row, style| short_id(&row.id, style) },
        Column {
            key: "Size",
            title: "SIZE",
            text: |row, style| {
                if style.human { table_size(row.size) } else { row.size.to_string() }
            },
        },
    ],
};

/// `history --human=false`: the title says that it is a time.
pub const HISTORY_WITH_TIMES: &str = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

/// A volume in `volume ls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRow {
    /// Its name.
    pub name: String,
    /// `local`
    pub driver: String,
    /// Path on the host.
    pub mountpoint: String,
    /// `local`
    pub scope: String,
    /// Metadata.
    pub labels: BTreeMap<String, String>,
}

/// `volume ls`.
pub static VOLUMES: Sheet<VolumeRow> = Sheet {
    type_name: "*formatter.volumeContext",
    usual: "{{.Driver}}\t{{.Name}}",
    label: Some(|row, name| row.labels.get(name).cloned()),
    columns: &[
        Column { key: "Availability", title: "AVAILABILITY", text: |_, _| NOT_KNOWN.to_owned() },
        Column { key: "Driver", title: "DRIVER", text: |row, _| row.driver.clone() },
        Column { key: "Group", title: "GROUP", text: |_, _| NOT_KNOWN.to_owned() },
        Column { key: "Labels", title: "LABELS", text: |row, _| labels_text(&row.labels) },
        Column { key: "Links", title: "LINKS", text: |_, _| NOT_KNOWN.to_owned() },
        Column { key: "Mountpoint", title: "MOUNTPOINT", text: |row, _| row.mountpoint.clone() },
        Column { key: "Name", title: "VOLUME NAME", text: |row, _| row.name.clone() },
        Column { key: "Scope", title: "SCOPE", text: |row, _| row.scope.clone() },
        Column { key: "Size", title: "SIZE", text: |_, _| NOT_KNOWN.to_owned() },
        Column { key: "Status", title: "STATUS", text: |_, _| NOT_KNOWN.to_owned() },
    ],
};

/// What a container uses, in `stats`; `None` where it does not run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsRow {
    /// As the user named it, or the id.
    pub container: String,
    /// 64 hex digits.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// Numbers.
    pub usage: Option<Usage>,
}

/// Numbers of `stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of one processor, in percent.
    pub cpu_percent: f64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub memory_limit: u64,
    /// Bytes received.
    pub network_in: u64,
    /// Bytes sent.
    pub network_out: u64,
    /// Bytes read.
    pub block_in: u64,
    /// Bytes written.
    pub block_out: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Usage {
    fn memory_percent(&self) -> f64 {
        if self.memory_limit == 0 { 0.0 } else { self.memory as f64 / self.memory_limit as f64 * 100.0 }
    }
}

fn usage_text(row: &StatsRow, nothing: &str, text: impl Fn(&Usage) -> String) -> String {
    row.usage.as_ref().map_or_else(|| nothing.to_owned(), text)
}

/// `stats`.
pub static STATS: Sheet<StatsRow> = Sheet {
    type_name: "*container.statsContext",
    usual: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    label: None,
    columns: &[
        Column {
            key: "BlockIO",
            title: "BLOCK I/O",
            text: |row, _| {
                usage_text(row, "--", |usage| {
                    format!("{} / {}", table_size(usage.block_in), table_size(usage.block_out))
                })
            },
        },
        Column {
            key: "CPUPerc",
            title: "CPU %",
            text: |row, _| usage_text(row, "--", |usage| format!("{:.2}%", usage.cpu_percent)),
        },
        Column { key: "Container", title: "CONTAINER", text: |row, _| row.container.clone() },
        Column { key: "ID", title: "CONTAINER ID", text: |row, style| short_id(&row.id, style) },
        Column {
            key: "MemPerc",
            title: "MEM %",
            text: |row, _| usage_text(row, "--", |usage| format!("{:.2}%", usage.memory_percent())),
        },
        Column {
            key: "MemUsage",
            title: "MEM USAGE / LIMIT",
            text: |row, _| {
                let text =
                    |usage: &Usage| format!("{} / {}", binary_size(usage.memory), binary_size(usage.memory_limit));
                usage_text(row, "-- / --", text)
            },
        },
        Column { key: "Name", title: "NAME", text: |row, _| or_dashes(&row.name) },
        Column {
            key: "NetIO",
            title: "NET I/O",
            text: |row, _| {
                let text =
                    |usage: &Usage| format!("{} / {}", table_size(usage.network_in), table_size(usage.network_out));
                usage_text(row, "--", text)
            },
        },
        Column { key: "PIDs", title: "PIDS", text: |row, _| usage_text(row, "--", |usage| usage.pids.to_string()) },
    ],
};

fn or_dashes(text: &str) -> String {
    if text.is_empty() { "--".to_owned() } else { text.to_owned() }
}
