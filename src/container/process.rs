//! The last steps of every process of a container, the first one and those that join: limits, identity, privileges,
//! filter, working directory, program.
//!
//! What can be decided beforehand is decided by the creator ([`ProcessSetup::prepare`]), so that a bad name fails before
//! anything has been made. The order of the steps in [`ProcessSetup::run`] is the contract with the kernel: each line
//! needs a privilege that a later line gives up.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, access, chdir, fchown, setgroups, setresgid, setresuid};

use crate::capabilities::{self, CapSets};
use crate::error::{Error, ErrorKind, Step, describe};
use crate::path::RootDir;
use crate::plan::{ProcessPlan, Rlimit};
use crate::seccomp;
use crate::sys;
use crate::user::{self, Identity};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process plan, checked and translated into what the kernel takes.
#[derive(Debug)]
pub(crate) struct ProcessSetup<'a> {
    plan: &'a ProcessPlan,
    capabilities: CapSets,
    filter: Option<seccomp::Program>,
    limits: Vec<(u32, &'a Rlimit)>,
    args: Vec<CString>,
}

/// What runs as the process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'a> {
    /// The plan's own.
    Own,
    /// The reaper, which runs the plan's own as its child: an open file with this program.
    Reaper(&'a OwnedFd),
    /// The keeper, which runs nothing: the same file.
    Keeper(&'a OwnedFd),
}

impl<'a> ProcessSetup<'a> {
    /// Translates a plan.
    pub(crate) fn prepare(plan: &'a ProcessPlan) -> Result<Self, Error> {
        if plan.args.is_empty() || plan.args[0].is_empty() {
            return Err(Error::new("process", "no command specified"));
        }
        if !plan.cwd.starts_with('/') {
            return Err(Error::new(format!("working directory {:?}", plan.cwd), "it must be an absolute path"));
        }
        let capabilities = CapSets::from_plan(&plan.capabilities)
            .and_then(CapSets::that_can_be_given)
            .map_err(|error| Error::new("capabilities", error))?;
        let filter = match &plan.seccomp {
            Some(filter) => Some(seccomp::compile(filter).map_err(|error| Error::new("seccomp", error))?),
            None => None,
        };
        let limit = |limit: &'a Rlimit| match rlimit_number(&limit.kind) {
            Some(number) => Ok((number, limit)),
            None => Err(Error::new("rlimit", format!("{} is not known", limit.kind))),
        };
        let limits = plan.rlimits.iter().map(limit).collect::<Result<_, _>>()?;
        let args = plan.args.iter().map(|text| c_string(text, "argument")).collect::<Result<_, _>>()?;
        Ok(Self { plan, capabilities, filter, limits, args })
    }

    /// Becomes the program; returns only with an error. The process stands in its namespaces with `/` as its root.
    pub(crate) fn run(self, program: Program<'_>) -> Result<Infallible, Error> {
        let root = open_root()?;
        let identity = user::resolve(&self.plan.user, RootDir::new(root.as_fd()))?;
        let env = environment(&self.plan.env, &identity)?;
        self.set_limits()?;
        sys::new_session_keyring().step(|| "make a session keyring".into())?;
        self.label_exec(RootDir::new(root.as_fd()))?;
        own_stdio(&identity)?;
        let entered = chdir(self.plan.cwd.as_str());
        capabilities::drop_bounding(&self.capabilities.bounding)
            .step(|| "drop capabilities from the bounding set".into())?;
        if !self.plan.no_new_privs {
            // Without no_new_privs the kernel takes a filter only from a process with CAP_SYS_ADMIN.
            self.install_filter()?;
        }
        self.change_identity(&identity)?;
        if self.plan.no_new_privs {
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).step(|| "set no_new_privs".into())?;
            self.install_filter()?;
        }
        self.check_directory(entered)?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        sys::default_signals();
        nix::sys::signal::sigprocmask(
            nix::sys::signal::SigmaskHow::SIG_SETMASK,
            Some(&nix::sys::signal::SigSet::empty()),
            None,
        )
        .step(|| "unblock signals".into())?;
        drop(root);
        sys::close_on_exec_from(3).step(|| "close descriptors".into())?;
        Err(self.exec(program, &env))
    }

    /// Sets how the process `who` (`self` or its id) fares when memory runs out. Not to be left to a process that has become
    /// root of a user namespace: the file is not its own then, and it may not be taken below where it was (proc(5)).
    pub(crate) fn set_score(plan: &ProcessPlan, who: &str) -> Result<(), Error> {
        let Some(score) = plan.oom_score_adj else { return Ok(()) };
        std::fs::write(format!("/proc/{who}/oom_score_adj"), score.to_string())
            .step(|| format!("--oom-score-adj {score}"))
    }

    fn set_limits(&self) -> Result<(), Error> {
        for (number, limit) in &self.limits {
            sys::set_rlimit(*number, limit.soft, limit.hard).step(|| {
                let name = limit.kind.trim_start_matches("RLIMIT_").to_lowercase();
                format!("--ulimit {name}={}:{}", limit.soft.cast_signed(), limit.hard.cast_signed())
            })?;
        }
        Ok(())
    }

    /// Asks the security module for a label at exec (apparmor(7), selinux(8)).
    fn label_exec(&self, root: RootDir<'_>) -> Result<(), Error> {
        let labels = [
            (self.plan.apparmor.as_ref().map(|profile| format!("exec {profile}")), "apparmor"),
            (self.plan.selinux.clone(), "selinux"),
        ];
        for (label, module) in labels {
            let Some(label) = label else { continue };
            let open = root
                .open("/proc/thread-self/attr/exec", OFlag::O_WRONLY)
                .or_else(|_| root.open(&format!("/proc/{}/attr/exec", std::process::id()), OFlag::O_WRONLY));
            open.and_then(|attribute| Ok(nix::unistd::write(attribute, label.as_bytes())?))
                .step(|| format!("--security-opt {module}={label}"))?;
        }
        Ok(())
    }

    fn install_filter(&self) -> Result<(), Error> {
        let Some(filter) = &self.filter else { return Ok(()) };
        if filter.wants_listener() {
            return Err(Error::new("seccomp", "SCMP_ACT_NOTIFY needs a listener, and there is none"));
        }
        seccomp::install(filter).step(|| "install the seccomp filter".into()).map(drop)
    }

    fn change_identity(&self, identity: &Identity) -> Result<(), Error> {
        capabilities::keep_over_setuid().step(|| "keep capabilities".into())?;
        let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        setgroups(&groups).step(|| format!("set supplementary groups {:?}", identity.groups))?;
        let gid = Gid::from_raw(identity.gid);
        setresgid(gid, gid, gid).step(|| format!("set group {gid}"))?;
        let uid = Uid::from_raw(identity.uid);
        setresuid(uid, uid, uid).step(|| format!("set user {uid}"))?;
        capabilities::set(&self.capabilities).step(|| "set capabilities".into())?;
        capabilities::raise_ambient(&self.capabilities).step(|| "raise ambient capabilities".into())?;
        capabilities::forget_over_setuid().step(|| "forget to keep capabilities".into())?;
        // A change of credentials takes the death signal away (prctl(2)).
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
            .step(|| "set the death signal".into())
            .map(drop)
    }

    /// Enters the working directory as the user where root could not, and makes sure that it lies inside the root
    /// (CVE-2024-21626).
    fn check_directory(&self, entered: nix::Result<()>) -> Result<(), Error> {
        let cwd = &self.plan.cwd;
        entered.or_else(|_| chdir(cwd.as_str())).step(|| format!("chdir to cwd ({cwd:?}) set in config.json"))?;
        let inside = sys::current_directory().step(|| "look at the working directory".into())?;
        if inside.starts_with(b"/") {
            return Ok(());
        }
        Err(Error::new(format!("working directory {cwd:?}"), "it lies outside the container's root"))
    }

    fn exec(&self, program: Program<'_>, env: &[CString]) -> Error {
        let reaper = match program {
            Program::Keeper(file) => return keep(file, env),
            Program::Reaper(file) => Some(file),
            Program::Own => None,
        };
        let name = &self.plan.args[0];
        let path = match find_program(name, env) {
            Ok(path) => path,
            Err(error) => return error,
        };
        let cause = match reaper {
            None => sys::execve(&path, &self.args, env),
            Some(file) => {
                let mut args = vec![CString::from(crate::init::NAME), c"--".to_owned(), path.clone()];
                args.extend_from_slice(&self.args);
                sys::fexecve(file.as_fd(), &args, env)
            }
        };
        let kind = match cause.raw_os_error() {
            Some(libc::ENOENT) => ErrorKind::NotFound,
            _ => ErrorKind::NotExecutable,
        };
        Error::of_kind(kind, format!("exec {}: {}", path.to_string_lossy(), describe(&cause)))
    }
}

fn keep(file: &OwnedFd, env: &[CString]) -> Error {
    let args = [crate::init::NAME, crate::init::KEEP].map(CString::from);
    Error::new("execute the keeper", describe(&sys::fexecve(file.as_fd(), &args, env)))
}

fn c_string(text: &str, what: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::new(format!("{what} {text:?}"), "it contains a NUL byte"))
}

pub(crate) fn open_root() -> Result<OwnedFd, Error> {
    nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        .step(|| "open the root".into())
}

/// The environment as C strings; the last of equal names wins and `HOME` comes from the user database.
fn environment(entries: &[String], identity: &Identity) -> Result<Vec<CString>, Error> {
    let name_of = |entry: &str| entry.split_once('=').map_or_else(|| entry.to_owned(), |(name, _)| name.to_owned());
    let mut unique: Vec<&String> = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = name_of(entry);
        match unique.iter_mut().find(|known| name_of(known) == name) {
            Some(known) => *known = entry,
            None => unique.push(entry),
        }
    }
    let mut env = unique.into_iter().map(|entry| c_string(entry, "environment")).collect::<Result<Vec<_>, _>>()?;
    if !entries.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(c_string(&format!("HOME={}", identity.home), "environment")?);
    }
    Ok(env)
}

/// Lets the user open its own stdio again by `/dev/stdout` and the like, as runc does.
fn own_stdio(identity: &Identity) -> Result<(), Error> {
    let null = nix::sys::stat::makedev(1, 3);
    for stream in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let found = nix::sys::stat::fstat(stream).step(|| "look at stdio".into())?;
        if found.st_rdev == null || found.st_uid == identity.uid {
            continue;
        }
        match fchown(stream, Some(Uid::from_raw(identity.uid)), None) {
            // Streams that came from somewhere else may refuse; they keep their owner.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::EPERM | nix::Error::EROFS | nix::Error::ENOSYS) => {}
            Err(error) => return Err(error).step(|| "own stdio".into()),
        }
    }
    Ok(())
}

/// Where a program may be: as it is with a slash in it, else in the directories of `PATH`, as execvp(3) and Docker do.
pub(crate) fn candidates(name: &str, path: Option<&[u8]>) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![PathBuf::from(name)];
    }
    let directories = path.unwrap_or(DEFAULT_PATH.as_bytes()).split(|byte| *byte == b':');
    let directories = directories.map(|directory| if directory.is_empty() { b"." } else { directory });
    directories.map(|directory| Path::new(std::ffi::OsStr::from_bytes(directory)).join(name)).collect()
}

/// The program's file.
fn find_program(name: &str, env: &[CString]) -> Result<CString, Error> {
    let quoted = format!("exec: {name:?}");
    if name.contains('/') {
        return match usable(Path::new(name)) {
            Ok(()) => c_string(name, "program"),
            Err(error) => Err(Error::of_kind(kind_of(&error), explain(&quoted, name, &error))),
        };
    }
    let path = env.iter().filter_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).next_back();
    let mut denied = None;
    for candidate in candidates(name, path) {
        match usable(&candidate) {
            Ok(()) => return sys::c_path(&candidate).step(|| quoted.clone()),
            Err(error) if kind_of(&error) == ErrorKind::NotExecutable => denied = Some(error),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(error) if error.raw_os_error() == Some(libc::EACCES) => {
            Error::of_kind(ErrorKind::NotExecutable, format!("{quoted}: permission denied"))
        }
        _ => Error::of_kind(ErrorKind::NotFound, format!("{quoted}: executable file not found in $PATH")),
    })
}

fn usable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    access(path, nix::unistd::AccessFlags::X_OK)?;
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EISDIR | libc::EPERM) => ErrorKind::NotExecutable,
        _ => ErrorKind::NotFound,
    }
}

fn explain(quoted: &str, name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => format!("{quoted}: stat {name}: {}", describe(error)),
        _ => format!("{quoted}: {}", describe(error)),
    }
}

fn rlimit_number(kind: &str) -> Option<u32> {
    let number = match kind {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        _ => return None,
    };
    #[allow(clippy::useless_conversion, reason = "musl has a signed type here")]
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { uid: 0, gid: 0, groups: vec![], home: "/root".into() }
    }

    #[test]
    fn the_last_of_equal_names_wins_and_home_is_added() {
        let entries = ["A=1", "B=2", "A=3"].map(str::to_owned);
        let env = environment(&entries, &identity()).unwrap();
        assert_eq!(env, [c"A=3".to_owned(), c"B=2".to_owned(), c"HOME=/root".to_owned()]);
        let own = environment(&["HOME=/x".to_owned()], &identity()).unwrap();
        assert_eq!(own, [c"HOME=/x".to_owned()]);
    }

    #[test]
    fn programs_are_found_or_explained_as_docker_does() {
        let env = [c"PATH=/nonexistent:/bin:/usr/bin".to_owned()];
        assert!(find_program("sh", &env).unwrap().to_bytes().ends_with(b"/sh"));
        let missing = find_program("sbx-nope", &env).unwrap_err();
        assert_eq!(missing.kind, ErrorKind::NotFound);
        assert_eq!(missing.message, "exec: \"sbx-nope\": executable file not found in $PATH");
        let missing = find_program("/sbx/nope", &env).unwrap_err();
        assert_eq!(missing.message, "exec: \"/sbx/nope\": stat /sbx/nope: no such file or directory");
        let directory = find_program("/etc", &env).unwrap_err();
        assert_eq!((directory.kind, &*directory.message), (ErrorKind::NotExecutable, "exec: \"/etc\": is a directory"));
        let plain = find_program("/etc/passwd", &env).unwrap_err();
        assert_eq!(plain.message, "exec: \"/etc/passwd\": permission denied");
    }

    #[test]
    fn limits_are_known_by_their_posix_names() {
        assert_eq!(rlimit_number("RLIMIT_NOFILE"), Some(7));
        assert_eq!(rlimit_number("nofile"), None);
    }
}
