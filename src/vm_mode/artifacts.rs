//! The two files that VM mode needs besides the program: the guest's kernel and the agent.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Names the directory that holds both files, before every other place.
pub const VARIABLE: &str = "SBX_LIBRARY";
/// Where packages put them.
const SYSTEM: [&str; 2] = ["/usr/local/lib/sbx", "/usr/lib/sbx"];
/// File name of the kernel, an ELF image.
const KERNEL: &str = "vmlinux";
/// File name of the agent, a static program.
const AGENT: &str = "sbx-guest-agent";

/// The files, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// The kernel.
    pub kernel: PathBuf,
    /// The agent.
    pub agent: PathBuf,
}

impl Artifacts {
    /// Looks for both in `$SBX_LIBRARY`, else beside the program and in `../lib/sbx` from there, else in the system's
    /// library directories.
    pub fn find(variable: Option<&OsStr>, program: &Path) -> Result<Self, Error> {
        let places = places(variable, program);
        let found = places.iter().map(|place| Self { kernel: place.join(KERNEL), agent: place.join(AGENT) });
        let mut complete = found.filter(|one| one.kernel.is_file() && one.agent.is_file());
        complete.next().ok_or_else(|| {
            let list: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            Error::NotInstalled(format!(
                "the guest's kernel and agent ({KERNEL}, {AGENT}) were not found in {}; build them with scripts/build or \
                 name their directory in {VARIABLE}",
                list.join(", ")
            ))
        })
    }

    /// The directory that they are in.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.kernel.parent()
    }
}

fn places(variable: Option<&OsStr>, program: &Path) -> Vec<PathBuf> {
    if let Some(named) = variable.filter(|named| !named.is_empty()) {
        // Whoever names a place wants that one and no other.
        return vec![PathBuf::from(named)];
    }
    let beside = program.parent().into_iter().flat_map(|place| [place.to_owned(), place.join("../lib/sbx")]);
    beside.chain(SYSTEM.iter().map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_found_together_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("bin/sbx");
        let library = directory.path().join("lib/sbx");
        std::fs::create_dir_all(&library).unwrap();
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::write(library.join(KERNEL), "").unwrap();
        let error = Artifacts::find(None, &program).unwrap_err().to_string();
        assert!(error.contains("vmlinux") && error.contains("SBX_LIBRARY"), "{error}");
        std::fs::write(library.join(AGENT), "").unwrap();
        let found = Artifacts::find(None, &program).unwrap();
        assert_eq!(found.directory().unwrap().canonicalize().unwrap(), library.canonicalize().unwrap());
        assert_eq!(
            Artifacts::find(Some(library.as_os_str()), Path::new("/none/sbx")).unwrap().kernel,
            library.join(KERNEL)
        );
        assert!(Artifacts::find(Some(OsStr::new("/none")), &program).is_err());
    }
}
