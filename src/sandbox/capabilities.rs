//! Which capabilities a container gets: Docker's defaults, changed by `--cap-add` and `--cap-drop`.
//!
//! The result is a list of names; which of them mean something is decided by the kernel that runs the container, and
//! so the number of its last capability is a parameter here.

use sbx_container::capabilities::NAMES;
use sbx_container::plan;

/// What a container has if nothing else is said (Docker's `daemon/pkg/oci/caps/defaults.go`, in its order).
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The word that stands for every capability.
const ALL: &str = "ALL";

/// Why capabilities cannot be granted. The words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No kernel has it.
    #[error("invalid {field}: unknown capability: {name:?}")]
    Unknown {
        /// `CapAdd` or `CapDrop`.
        field: &'static str,
        /// In capitals and with prefix.
        name: String,
    },
    /// The kernel that will run the container does not have it.
    #[error(
        "invalid {field}: capability not supported by your kernel or not available in the current environment: {name:?}"
    )]
    Unsupported {
        /// `CapAdd` or `CapDrop`.
        field: &'static str,
        /// In capitals and with prefix.
        name: String,
    },
}

/// All capabilities of a kernel whose last one has the number `last` (`/proc/sys/kernel/cap_last_cap`): what
/// `--privileged` grants. Those that are newer than this program are left out, as they have no name yet.
#[must_use]
pub fn all(last: u8) -> Vec<String> {
    NAMES.iter().take(usize::from(last) + 1).map(|name| (*name).to_owned()).collect()
}

/// Applies `--cap-add` and `--cap-drop` to the defaults, as Docker does:
///
/// - Names count in any case and with or without `CAP_`; `ALL` is every capability.
/// - Adding `ALL` grants all but the dropped ones; else dropping `ALL` grants the added ones alone; else what is
///   added stays even if it is also dropped.
///
/// `last` is the number of the kernel's last capability.
///
/// # Errors
/// A name that is not known, or not to that kernel; added ones are looked at first.
pub fn resolve(add: &[String], drop: &[String], last: u8) -> Result<Vec<String>, Error> {
    let add = normalize(add, "CapAdd", last)?;
    let drop = normalize(drop, "CapDrop", last)?;
    let is_all = |name: &String| name == ALL;
    let mut granted: Vec<String> = if add.iter().any(is_all) {
        all(last).into_iter().filter(|name| !drop.contains(name)).collect()
    } else if drop.iter().any(is_all) {
        add
    } else {
        let kept = DEFAULT.map(str::to_owned).into_iter().filter(|name| !drop.contains(name));
        kept.chain(add).collect()
    };
    let mut seen = Vec::with_capacity(granted.len());
    granted.retain(|name| {
        let is_new = !seen.contains(name);
        seen.push(name.clone());
        is_new
    });
    Ok(granted)
}

/// The sets of a container's first process, and of `exec`, for a list of capabilities. The inheritable set is empty,
/// so that no file capability lets a program of another user have them (CVE-2022-24769). For a user other than root
/// `execve` itself takes the effective and permitted ones away (capabilities(7)).
#[must_use]
pub fn sets(granted: Vec<String>) -> plan::Capabilities {
    plan::Capabilities {
        bounding: granted.clone(),
        effective: granted.clone(),
        inheritable: Vec::new(),
        permitted: granted,
        ambient: Vec::new(),
    }
}

fn normalize(names: &[String], field: &'static str, last: u8) -> Result<Vec<String>, Error> {
    names.iter().map(|name| normalize_one(name, field, last)).collect()
}

fn normalize_one(name: &str, field: &'static str, last: u8) -> Result<String, Error> {
    let mut name = name.to_uppercase();
    if name == ALL {
        return Ok(name);
    }
    if !name.starts_with("CAP_") {
        name.insert_str(0, "CAP_");
    }
    match NAMES.iter().position(|known| *known == name) {
        Some(number) if number <= usize::from(last) => Ok(name),
        Some(_) => Err(Error::Unsupported { field, name }),
        None => Err(Error::Unknown { field, name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u8 = 40;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn granted(add: &[&str], drop: &[&str]) -> Vec<String> {
        resolve(&names(add), &names(drop), LAST).expect("resolves")
    }

    #[test]
    fn nothing_said_grants_the_fourteen_defaults() {
        assert_eq!(granted(&[], &[]), names(&DEFAULT));
    }

    #[test]
    fn names_count_in_any_case_and_without_prefix() {
        let added = granted(&["net_admin", "Cap_Sys_Time", "NET_ADMIN"], &["chown", "CAP_KILL"]);
        assert_eq!(added.len(), 14);
        assert!(added.contains(&"CAP_NET_ADMIN".to_owned()) && added.contains(&"CAP_SYS_TIME".to_owned()));
        assert!(!added.contains(&"CAP_CHOWN".to_owned()) && !added.contains(&"CAP_KILL".to_owned()));
    }

    #[test]
    fn all_can_be_added_and_dropped() {
        assert_eq!(granted(&["all"], &[]).len(), 41);
        let without = granted(&["ALL"], &["SYS_ADMIN"]);
        assert_eq!(without.len(), 40);
        assert!(!without.contains(&"CAP_SYS_ADMIN".to_owned()));
        assert_eq!(granted(&[], &["ALL"]), names(&[]));
        assert_eq!(granted(&["NET_RAW", "chown"], &["ALL"]), names(&["CAP_NET_RAW", "CAP_CHOWN"]));
        assert_eq!(granted(&["ALL"], &["ALL"]).len(), 41);
    }

    #[test]
    fn what_is_added_and_dropped_is_added() {
        assert!(granted(&["CHOWN"], &["CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(granted(&["CHOWN"], &[]).len(), 14);
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        let error = |add: &[&str], drop: &[&str], last| {
            resolve(&names(add), &names(drop), last).expect_err("is unknown").to_string()
        };
        assert_eq!(error(&["foo"], &[], LAST), "invalid CapAdd: unknown capability: \"CAP_FOO\"");
        assert_eq!(error(&[""], &["CAP_all"], LAST), "invalid CapAdd: unknown capability: \"CAP_\"");
        assert_eq!(error(&[], &["CAP_ALL"], LAST), "invalid CapDrop: unknown capability: \"CAP_ALL\"");
        assert_eq!(
            error(&["bpf"], &[], 37),
            "invalid CapAdd: capability not supported by your kernel or not available in the current environment: \
             \"CAP_BPF\""
        );
    }

    #[test]
    fn privileged_is_what_the_kernel_has() {
        assert_eq!(all(40).len(), 41);
        assert_eq!(all(37).last().map(String::as_str), Some("CAP_AUDIT_READ"));
        assert_eq!(all(63).len(), 41);
    }

    #[test]
    fn the_sets_have_nothing_to_inherit() {
        let sets = sets(names(&DEFAULT));
        assert_eq!((sets.bounding.len(), sets.effective.len(), sets.permitted.len()), (14, 14, 14));
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    }
}
