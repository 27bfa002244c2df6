//! Mount options: the words of mount(8) that runc knows, and what is left for the file system.

use sbx_container::plan::{MountAttributes, Propagation};

use super::Error;

/// A list of mount options, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) attributes: MountAttributes,
    pub(super) propagation: Option<Propagation>,
    /// `Some(true)` with the mounts below the source.
    pub(super) bind: Option<Bind>,
    /// Owners are shown as the container's ids.
    pub(super) idmapped: bool,
    /// Options of the superblock.
    pub(super) data: Vec<String>,
}

/// How a bind mount takes the mounts below its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    Single,
    Recursive,
}

pub(super) fn parse(destination: &str, words: &[String]) -> Result<Options, Error> {
    let mut options = Options::default();
    for word in words {
        if !attribute(&mut options.attributes, word) && !kind(&mut options, word) {
            option(&mut options, destination, word)?;
        }
    }
    Ok(options)
}

/// Per-mount flags. The `r`-forms of mount_setattr(2) reach the mounts below; only read-only has a place in the plan.
fn attribute(attributes: &mut MountAttributes, word: &str) -> bool {
    match word {
        "ro" => attributes.read_only = true,
        "rw" => {
            attributes.read_only = false;
            attributes.recursive_read_only = false;
        }
        "rro" => {
            attributes.read_only = true;
            attributes.recursive_read_only = true;
        }
        "nosuid" => attributes.nosuid = true,
        "suid" => attributes.nosuid = false,
        "nodev" => attributes.nodev = true,
        "dev" => attributes.nodev = false,
        "noexec" => attributes.noexec = true,
        "exec" => attributes.noexec = false,
        "nosymfollow" => attributes.nosymfollow = true,
        "symfollow" => attributes.nosymfollow = false,
        "nodiratime" => attributes.nodiratime = true,
        "diratime" => attributes.nodiratime = false,
        "noatime" => set_access_time(attributes, AccessTime::Never),
        "relatime" => set_access_time(attributes, AccessTime::Relative),
        "strictatime" => set_access_time(attributes, AccessTime::Strict),
        "atime" | "norelatime" | "nostrictatime" => set_access_time(attributes, AccessTime::Default),
        "defaults" => {}
        _ => return false,
    }
    true
}

enum AccessTime {
    Default,
    Never,
    Relative,
    Strict,
}

/// The four exclude each other (mount_setattr(2), MOUNT_ATTR__ATIME).
fn set_access_time(attributes: &mut MountAttributes, kind: AccessTime) {
    attributes.noatime = matches!(kind, AccessTime::Never);
    attributes.relatime = matches!(kind, AccessTime::Relative);
    attributes.strictatime = matches!(kind, AccessTime::Strict);
}

fn kind(options: &mut Options, word: &str) -> bool {
    let propagation = match word {
        "private" => Propagation::Private,
        "rprivate" => Propagation::RecursivePrivate,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::RecursiveSlave,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::RecursiveShared,
        "bind" => {
            options.bind = Some(Bind::Single);
            return true;
        }
        "rbind" => {
            options.bind = Some(Bind::Recursive);
            return true;
        }
        "idmap" | "ridmap" => {
            options.idmapped = true;
            return true;
        }
        _ => return false,
    };
    options.propagation = Some(propagation);
    true
}

fn option(options: &mut Options, destination: &str, word: &str) -> Result<(), Error> {
    let refused = match word {
        "unbindable" | "runbindable" => Some("unbindable mounts are of no use inside a container"),
        "remount" => Some("there is nothing to remount in a new root"),
        "tmpcopyup" => Some("copying into a tmpfs is not done"),
        "mand" | "nomand" => Some("mandatory locks are gone from the kernel since Linux 5.15"),
        _ if is_recursive_attribute(word) => Some("of the recursive attributes only rro is supported"),
        _ => None,
    };
    if let Some(reason) = refused {
        return Err(Error::unsupported(format!("mounts[{destination}].options {word:?}"), reason));
    }
    if word.is_empty() || word.contains([',', '\0']) {
        return Err(Error::invalid(format!("mounts[{destination}].options"), format!("{word:?} is not one option")));
    }
    options.data.push(word.to_owned());
    Ok(())
}

fn is_recursive_attribute(word: &str) -> bool {
    let known = [
        "rrw",
        "rnosuid",
        "rsuid",
        "rnodev",
        "rdev",
        "rnoexec",
        "rexec",
        "rnodiratime",
        "rdiratime",
        "rrelatime",
        "rnorelatime",
        "rnoatime",
        "ratime",
        "rstrictatime",
        "rnostrictatime",
        "rnosymfollow",
        "rsymfollow",
    ];
    known.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Options {
        parse("/x", &words.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn flags_switch_on_and_off_and_the_last_one_holds() {
        let on = parsed("ro nosuid nodev noexec nosymfollow nodiratime").attributes;
        assert!(on.read_only && on.nosuid && on.nodev && on.noexec && on.nosymfollow && on.nodiratime);
        assert_eq!(
            parsed("ro nosuid nodev noexec nosymfollow nodiratime rw suid dev exec symfollow diratime").attributes,
            MountAttributes::default()
        );
        assert!(parsed("rro").attributes.recursive_read_only);
        assert_eq!(parsed("rro rw").attributes, MountAttributes::default());
    }

    #[test]
    fn access_times_exclude_each_other() {
        assert!(parsed("noatime").attributes.noatime);
        let strict = parsed("noatime strictatime").attributes;
        assert!(strict.strictatime && !strict.noatime);
        let relative = parsed("strictatime relatime").attributes;
        assert!(relative.relatime && !relative.strictatime);
        assert_eq!(parsed("noatime atime").attributes, MountAttributes::default());
    }

    #[test]
    fn kinds_propagation_and_data_are_told_apart() {
        let options = parsed("rbind rslave idmap size=64m mode=1777 uid=5 defaults");
        assert_eq!(options.bind, Some(Bind::Recursive));
        assert_eq!(options.propagation, Some(Propagation::RecursiveSlave));
        assert!(options.idmapped);
        assert_eq!(options.data, ["size=64m", "mode=1777", "uid=5"]);
        assert_eq!(parsed("bind private").bind, Some(Bind::Single));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for word in ["unbindable", "runbindable", "remount", "tmpcopyup", "mand", "rnosuid", "rrw", "", "a,b"] {
            let error = parse("/x", &[word.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("mounts[/x].options"), "{error}");
        }
    }
}
