//! The verbs of volumes.

use super::{Count, Verb, filter_flag, filters, format_flag, list::of_names, list_format_flag, prune_filter_flag};
use crate::{
    command::{Command, CreateVolume, Inspect, ListVolumes, ObjectKind, Prune, RemoveVolumes},
    error::Fault,
    flags::{
        Flag,
        parse::{Operands, Parsed},
    },
    run::process::{check_any, check_label},
};

/// Of cluster volumes, which exist in a swarm only.
const CLUSTER: [&str; 10] = [
    "availability",
    "group",
    "limit-bytes",
    "required-bytes",
    "scope",
    "secret",
    "sharing",
    "topology-preferred",
    "topology-required",
    "type",
];

const fn cluster_flag(long: &'static str) -> Flag {
    Flag::list(long, "Of cluster volumes").hidden()
}

pub(crate) static CREATE: Verb = Verb {
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    flags: &[&[
        Flag::text("driver", "Driver of the volume").short('d').default("\"local\""),
        Flag::list("label", "Set metadata on the volume").checked("list", check_label),
        Flag::text("name", "").stands_for("name").hidden(),
        Flag::list("opt", "Options of the driver").short('o').checked("map", check_any),
        cluster_flag(CLUSTER[0]),
        cluster_flag(CLUSTER[1]),
        cluster_flag(CLUSTER[2]),
        cluster_flag(CLUSTER[3]),
        cluster_flag(CLUSTER[4]),
        cluster_flag(CLUSTER[5]),
        cluster_flag(CLUSTER[6]),
        cluster_flag(CLUSTER[7]),
        cluster_flag(CLUSTER[8]),
        cluster_flag(CLUSTER[9]),
    ]],
    operands: Operands::Mixed,
    count: Count::AtMost(1),
    read: |parsed, _| {
        if let Some(flag) = CLUSTER.iter().find(|flag| parsed.is_set(flag)) {
            return Err(format!("--{flag} is not supported: there are no cluster volumes").into());
        }
        let driver = parsed.text("driver");
        if !["", "local"].contains(&driver) {
            return Err(Fault::Plain(format!("--driver {driver} is not supported: the only driver is \"local\"")));
        }
        let operand = parsed.operands.first().cloned();
        let name = match (operand, parsed.filled("name")) {
            (Some(_), Some(_)) => {
                return Err(Fault::Plain(
                    "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
                        .to_owned(),
                ));
            }
            (operand, flag) => operand.or(flag),
        };
        Ok(Command::CreateVolume(CreateVolume { name, labels: pairs(parsed, "label"), options: pairs(parsed, "opt") }))
    },
};

fn pairs(parsed: &Parsed, flag: &str) -> Vec<(String, String)> {
    crate::run::process::pairs(parsed.list(flag)).into_iter().collect()
}

pub(crate) static LIST: Verb = Verb {
    usage: "[OPTIONS]",
    about: "List volumes",
    flags: &[&[
        Flag::switch("cluster", "Of a swarm").hidden(),
        filter_flag(),
        list_format_flag(),
        Flag::switch("quiet", "Only show volume names").short('q'),
    ]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| {
        if parsed.on("cluster") {
            return Err("--cluster is not supported: there are no cluster volumes".to_owned().into());
        }
        let format = parsed.filled("format");
        Ok(Command::Volumes(ListVolumes { filters: filters(parsed)?, format, quiet: parsed.on("quiet") }))
    },
};

pub(crate) static INSPECT: Verb = Verb {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Show all that is known of volumes",
    flags: &[&[format_flag()]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| Ok(Command::Inspect(Inspect { kind: Some(ObjectKind::Volume), ..of_names(parsed) })),
};

pub(crate) static REMOVE: Verb = Verb {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes that no container uses",
    flags: &[&[Flag::switch("force", "A volume that does not exist is no fault").short('f')]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        Ok(Command::RemoveVolumes(RemoveVolumes { names: parsed.operands.clone(), force: parsed.on("force") }))
    },
};

pub(crate) static PRUNE: Verb = Verb {
    usage: "[OPTIONS]",
    about: "Remove unused volumes",
    flags: &[&[
        Flag::switch("all", "Remove those that have a name too").short('a'),
        prune_filter_flag(),
        Flag::switch("force", "Do not ask").short('f'),
    ]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| {
        let (all, force) = (parsed.on("all"), parsed.on("force"));
        Ok(Command::PruneVolumes(Prune { all, force, filters: filters(parsed)? }))
    },
};
