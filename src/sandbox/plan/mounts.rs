//! OCI mounts become the plan's.

use oci_spec::runtime::Mount as OciMount;
use sbx_container::plan::{Mount, MountSource, Propagation};

use super::options::{self, Bind, Options};
use super::{Error, text};

pub(super) fn mounts(mounts: &[OciMount]) -> Result<Vec<Mount>, Error> {
    mounts.iter().map(mount).collect()
}

fn mount(mount: &OciMount) -> Result<Mount, Error> {
    let target = text("mounts.destination", mount.destination().as_os_str())?;
    if !target.starts_with('/') {
        return Err(Error::invalid("mounts.destination", format!("{target:?} is not an absolute path")));
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        let reason = "identity maps of a single mount; use the option idmap for those of the container";
        return Err(Error::unsupported(format!("mounts[{target}].uidMappings"), reason));
    }
    let options = options::parse(&target, mount.options().as_deref().unwrap_or_default())?;
    let kind = mount.typ().as_deref().unwrap_or_default();
    let source = match mount.source() {
        Some(source) => text("mounts.source", source.as_os_str())?,
        None => String::new(),
    };
    let source = source_of(&target, kind, source, &options)?;
    // A bind mount shares with the host unless it is told otherwise; rprivate is what Docker and runc give it.
    let propagation = options.propagation.unwrap_or(Propagation::RecursivePrivate);
    Ok(Mount { target, source, attributes: options.attributes, propagation })
}

fn source_of(target: &str, kind: &str, source: String, options: &Options) -> Result<MountSource, Error> {
    let field = format!("mounts[{target}]");
    if let Some(bind) = bind(kind, options) {
        if !source.starts_with('/') {
            return Err(Error::invalid(format!("{field}.source"), format!("{source:?} is not an absolute path")));
        }
        no_data(&field, "bind", &options.data)?;
        return Ok(MountSource::Bind { path: source, recursive: bind == Bind::Recursive, idmapped: options.idmapped });
    }
    if options.idmapped {
        return Err(Error::unsupported(format!("{field}.options"), "idmap is for bind mounts"));
    }
    match kind {
        "proc" => {
            no_data(&field, kind, &options.data)?;
            Ok(MountSource::Proc)
        }
        "sysfs" => {
            no_data(&field, kind, &options.data)?;
            Ok(MountSource::Sysfs)
        }
        "cgroup" | "cgroup2" => {
            no_data(&field, kind, &options.data)?;
            Ok(MountSource::Cgroup)
        }
        "" | "none" => Err(Error::invalid(format!("{field}.type"), "missing, and not a bind mount")),
        _ => Ok(MountSource::Filesystem {
            fstype: kind.to_owned(),
            source: if source.is_empty() { kind.to_owned() } else { source },
            options: options.data.clone(),
        }),
    }
}

fn bind(kind: &str, options: &Options) -> Option<Bind> {
    options.bind.or((kind == "bind").then_some(Bind::Single))
}

fn no_data(field: &str, kind: &str, data: &[String]) -> Result<(), Error> {
    match data.first() {
        None => Ok(()),
        Some(option) => {
            Err(Error::unsupported(format!("{field}.options {option:?}"), format!("{kind} has no such option")))
        }
    }
}

/// The root's propagation is what its mounts need; a value that none of them needs has no place in a plan.
pub(super) fn check_root_propagation(value: Option<&str>, mounts: &[Mount]) -> Result<(), Error> {
    use Propagation::{RecursiveShared, RecursiveSlave, Shared, Slave};
    let has = |kinds: &[Propagation]| mounts.iter().any(|mount| kinds.contains(&mount.propagation));
    let honoured = match value {
        None | Some("" | "private" | "rprivate") => true,
        Some("slave" | "rslave") => has(&[Slave, RecursiveSlave, Shared, RecursiveShared]),
        Some("shared" | "rshared") => has(&[Shared, RecursiveShared]),
        Some(_) => false,
    };
    if honoured {
        return Ok(());
    }
    let reason = format!("{:?} without a mount of that propagation", value.unwrap_or_default());
    Err(Error::unsupported("linux.rootfsPropagation", reason))
}
