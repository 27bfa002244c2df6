//! Templates: machines that were saved when their agent was there and before it knew of any container.
//!
//! A container's machine begins where the template stands: its memory is the file's, read when it is needed and copied when
//! it is written, so that all machines share what they have not changed. A template depends on the size of the machine and
//! on what it was made of and by, and on nothing of a container: not on its image, volumes or network.
//!
//! ```text
//! ROOT/templates/lock           held while one is made
//!               BOOT-KEY        a template; BOOT is that of the host, KEY what it was made of
//!               BOOT-KEY.needed which of its memory a start needs, as the first one from it has shown
//!               .new            one in the making
//! ```

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sbx_vmm::machine::{SavedMachine, WorkingSet};

use crate::artifacts::Artifacts;
use crate::error::Error;
use crate::machine::{DEATH_PATIENCE, Machine};
use crate::size::Size;

/// Name of the file that is locked while one is made.
const LOCK: &str = "lock";
/// How many templates are kept; each takes the disk what a machine has touched, some fifty MiB.
const KEPT: usize = 8;
/// Longest wait for the agent to end its knock.
const KNOCK: Duration = Duration::from_secs(10);

/// A template, and what is known of starts from it.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) file: File,
    /// Which of its memory a start needs; `None` until there was one.
    pub(crate) needed: Option<WorkingSet>,
    path: PathBuf,
}

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
    pub(crate) fn get(&self, size: Size, artifacts: &Artifacts, user: u32) -> Result<Template, Error> {
        let path = self.directory.join(key(size, artifacts)?);
        if let Ok(template) = Template::open(&path) {
            return Ok(template);
        }
        let step = || format!("keep a template of the virtual machine in {}", self.directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(Error::io(step()))?;
        let lock = File::create(self.directory.join(LOCK)).map_err(Error::io(step()))?;
        lock.lock().map_err(Error::io(step()))?;
        if let Ok(template) = Template::open(&path) {
            return Ok(template);
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
        Template::open(&path).map_err(Error::io(step()))
    }

    /// Removes those of other boots of the host, and the oldest. Machines that were made from one keep it.
    fn forget_old(&self, newest: &Path) {
        let boot = boot_of(newest);
        let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_template = entry.file_name().to_string_lossy().contains('-') && path.extension().is_none();
            if path == *newest || !is_template {
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
            let _ = fs::remove_file(needed_of(path));
        }
    }
}

impl Template {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let needed = fs::read(needed_of(path)).ok().and_then(|bytes| WorkingSet::from_bytes(&bytes));
        Ok(Self { file, needed, path: path.to_owned() })
    }

    /// Notes what a machine that has just started from it has needed, if nobody has done so yet. What cannot be noted makes
    /// later starts slower.
    pub(crate) fn learn(&self, pid: i32) {
        if self.needed.is_none() {
            let _ = self.note(pid);
        }
    }

    fn note(&self, pid: i32) -> Result<(), Error> {
        let step = || format!("note what a start from {} needs", self.path.display());
        let lock = File::create(self.path.with_file_name(LOCK)).map_err(Error::io(step()))?;
        if lock.try_lock().is_err() {
            // Somebody else is at it, or makes a template.
            return Ok(());
        }
        let saved = SavedMachine::open(self.file.try_clone().map_err(Error::io(step()))?)?;
        let Some(needed) = saved.working_set(pid)? else { return Ok(()) };
        let new = self.path.with_extension("needed.new");
        let written = fs::write(&new, needed.to_bytes()).and_then(|()| fs::rename(&new, needed_of(&self.path)));
        written.map_err(Error::io(step()))
    }
}

fn needed_of(template: &Path) -> PathBuf {
    template.with_extension("needed")
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
        remote.save(file)?;
        Ok(remote.stop()?)
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
        let beside = [file("bb-0.needed", 0), file("bb-9.needed", 90)];
        let own: Vec<PathBuf> = (0..10).map(|age| file(&format!("bb-{age}"), 10 * age)).collect();
        templates.forget_old(&own[0]);
        assert!(lock.exists() && !other_boot.exists());
        let kept: Vec<bool> = own.iter().map(|path| path.exists()).collect();
        assert_eq!(kept, [true, true, true, true, true, true, true, true, false, false]);
        assert_eq!(beside.map(|path| path.exists()), [true, false]);
    }
}
