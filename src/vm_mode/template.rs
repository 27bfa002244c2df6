//! Templates: machines that were saved when their agent was there and before it knew of any container.
//!
//! A container's machine begins where the template stands: its memory is the file's, read when it is needed and copied when
//! it is written, so that all machines share what they have not changed. A template depends on the size of the machine and
//! on what it was made of and by, and on nothing of a container: not on its image, volumes or network.
//!
//! ```text
//! ROOT/templates/lock           held while one is made
//!               BOOT-KEY        a template; BOOT is that of the host, KEY what it was made of
//!               .new            one in the making
//! ```

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::artifacts::Artifacts;
use crate::error::Error;
use crate::machine::{DEATH_PATIENCE, Machine};
use crate::size::Size;

/// How many templates are kept; each takes the disk what a machine has touched, some fifty MiB.
const KEPT: usize = 8;
/// Longest wait for the agent to end its knock.
const KNOCK: Duration = Duration::from_secs(10);

/// The templates below a directory.
#[derive(Clone, Debug)]
pub struct Templates {
    directory: PathBuf,
}

impl Templates {
    /// Those of the store at `root`.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        Self { directory: root.join("templates") }
    }

    /// The template of a machine of this size, which is made where there is none. `user` is who the machine's process
    /// becomes meanwhile.
    pub(crate) fn get(&self, size: Size, artifacts: &Artifacts, user: u32) -> Result<File, Error> {
        let path = self.directory.join(key(size, artifacts)?);
        if let Ok(file) = File::open(&path) {
            return Ok(file);
        }
        let step = || format!("keep a template of the virtual machine in {}", self.directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(Error::io(step()))?;
        let lock = File::create(self.directory.join("lock")).map_err(Error::io(step()))?;
        lock.lock().map_err(Error::io(step()))?;
        if let Ok(file) = File::open(&path) {
            return Ok(file);
        }
        let new = self.directory.join(".new");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&new);
        let file = file.map_err(Error::io(step()))?;
        let made = make(size, artifacts, user, &file).and_then(|()| fs::rename(&new, &path).map_err(Error::io(step())));
        if let Err(error) = made {
            // The next one begins it anew.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        self.forget_old(&path);
        // Opened anew: nobody can write to what others are made from.
        File::open(&path).map_err(Error::io(step()))
    }

    /// Removes those of other boots of the host, and the oldest. Machines that were made from one keep it.
    fn forget_old(&self, newest: &Path) {
        let boot = boot_of(newest);
        let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path == *newest || !entry.file_name().to_string_lossy().contains('-') {
                continue;
            }
            let made = entry.metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            others.push((if boot_of(&path) == boot { made } else { SystemTime::UNIX_EPOCH }, path));
        }
        others.sort();
        let stale = others.iter().filter(|(made, _)| *made == SystemTime::UNIX_EPOCH).count();
        for (_, path) in others.iter().take(stale.max(others.len().saturating_sub(KEPT - 1))) {
            // One that stays takes room and does no harm.
            let _ = fs::remove_file(path);
        }
    }
}

fn boot_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.split_once('-')?.0.to_owned())
}

/// The name of a template: the boot of the host (for KVM may be another after it) and a hash of all that goes into it.
fn key(size: Size, artifacts: &Artifacts) -> Result<String, Error> {
    let mut boot = String::new();
    let file = File::open("/proc/sys/kernel/random/boot_id").and_then(|mut file| file.read_to_string(&mut boot));
    file.map_err(Error::io("read /proc/sys/kernel/random/boot_id"))?;
    let mut hash = DefaultHasher::new();
    (size.memory, size.cpus, env!("CARGO_PKG_VERSION")).hash(&mut hash);
    for path in [Path::new("/proc/self/exe"), &artifacts.kernel, &artifacts.agent] {
        let found = fs::metadata(path).map_err(Error::io(format!("look at {}", path.display())))?;
        identity(&found).hash(&mut hash);
    }
    Ok(format!("{}-{:016x}", boot.trim().replace('-', ""), hash.finish()))
}

/// What changes when a file does.
fn identity(file: &Metadata) -> [u64; 5] {
    let seconds = [file.mtime(), file.mtime_nsec()].map(i64::cast_unsigned);
    [file.dev(), file.ino(), file.size(), seconds[0], seconds[1]]
}

/// Boots a machine, waits until its agent listens, and saves it.
fn make(size: Size, artifacts: &Artifacts, user: u32, file: &File) -> Result<(), Error> {
    let (mut machine, gate, remote) = Machine::boot(size, artifacts, user)?;
    let saved = machine.wait_for_agent(&gate).and_then(|mut knock| {
        knock.set_read_timeout(Some(KNOCK)).map_err(Error::io("wait for the agent"))?;
        // It sends nothing; it ends the connection when it listens.
        let _ = knock.read(&mut [0]).map_err(Error::io("wait for the agent"))?;
        remote.save(file).map_err(|error| Error::MachineEnded(error.to_string()))?;
        remote.stop().map_err(|error| Error::MachineEnded(error.to_string()))
    });
    match saved {
        Ok(()) => machine.wait(DEATH_PATIENCE).map_or(Ok(()), |words| Err(Error::MachineEnded(words))),
        Err(error) => Err(machine.kill().map_or(error, Error::MachineEnded)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifacts(directory: &Path) -> Artifacts {
        let artifacts = Artifacts { kernel: directory.join("kernel"), agent: directory.join("agent") };
        for file in [&artifacts.kernel, &artifacts.agent] {
            fs::write(file, "1").unwrap();
        }
        artifacts
    }

    #[test]
    fn what_goes_into_a_machine_makes_another_template() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = artifacts(directory.path());
        let size = Size { memory: 1 << 30, cpus: 2 };
        let first = key(size, &artifacts).unwrap();
        assert_eq!(key(size, &artifacts).unwrap(), first);
        assert_ne!(key(Size { cpus: 1, ..size }, &artifacts).unwrap(), first);
        assert_ne!(key(Size { memory: 2 << 30, ..size }, &artifacts).unwrap(), first);
        fs::write(&artifacts.agent, "22").unwrap();
        assert_ne!(key(size, &artifacts).unwrap(), first);
    }

    #[test]
    fn old_templates_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let templates = Templates::of(directory.path());
        fs::create_dir(&templates.directory).unwrap();
        let file = |name: &str, age: u64| {
            let path = templates.directory.join(name);
            let made = SystemTime::now() - Duration::from_secs(age);
            File::create(&path).unwrap().set_modified(made).unwrap();
            path
        };
        let (lock, other_boot) = (file("lock", 1000), file("aa-1", 1));
        let own: Vec<PathBuf> = (0..10).map(|age| file(&format!("bb-{age}"), 10 * age)).collect();
        templates.forget_old(&own[0]);
        assert!(lock.exists() && !other_boot.exists());
        let kept: Vec<bool> = own.iter().map(|path| path.exists()).collect();
        assert_eq!(kept, [true, true, true, true, true, true, true, true, false, false]);
    }
}
