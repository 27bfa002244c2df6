//! Every verb, fully read: what `parse` answers and what the second step executes. Plain data; nothing here is optional in
//! the sense of "the user did not say" unless its comment says what absence means.

use std::path::PathBuf;

use crate::{completion::Shell, detach::DetachKeys, filter::Filters, run::RunCommand, units::Moment};

/// Where this program keeps its things; given before the verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// `--root`: images, containers, volumes.
    pub root: PathBuf,
    /// `--run`: sockets, mounts; gone after a reboot.
    pub run: PathBuf,
    /// `--config`: the configuration file.
    pub config: PathBuf,
    /// `--debug`.
    pub debug: bool,
}

/// A command line, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// What stood before the verb.
    pub globals: Globals,
    /// Notices for the standard error (a deprecated flag), one a line.
    pub notices: Vec<String>,
    /// What to do.
    pub command: Command,
}

/// A verb with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Print this text to the standard output; status 0.
    Help(String),
    /// `--version`: print `sbx version X`.
    ProgramVersion,
    /// Print a completion script.
    Completion(Shell),
    /// Create, start, attach.
    Run(Box<RunCommand>),
    /// Create.
    Create(Box<RunCommand>),
    /// Start what was created.
    Start(Start),
    /// Stop, with a signal and then by force.
    Stop(Stop),
    /// Stop and start.
    Restart(Stop),
    /// Send a signal.
    Kill(Kill),
    /// Remove containers.
    Remove(Remove),
    /// Run another program in a container.
    Exec(Exec),
    /// Come back to a container's streams.
    Attach(Attach),
    /// Copy files from or to a container.
    Copy(Copy),
    /// Write a container's file system to an archive.
    Export(Export),
    /// Show what a container wrote.
    Logs(Logs),
    /// List containers.
    List(ListContainers),
    /// Show all about objects.
    Inspect(Inspect),
    /// Wait for containers to end.
    Wait(Vec<String>),
    /// Show published ports.
    Port(Port),
    /// Give a container another name.
    Rename(Rename),
    /// Freeze containers.
    Pause(Vec<String>),
    /// Thaw containers.
    Unpause(Vec<String>),
    /// Show the processes of a container.
    Top(Top),
    /// Show what containers use.
    Stats(Stats),
    /// Remove all stopped containers.
    PruneContainers(Prune),
    /// Show the state of the installation.
    Info(Format),
    /// Tell what this machine can do.
    Doctor(Doctor),
    /// Show versions.
    Version(Format),
    /// Download an image.
    Pull(Pull),
    /// List images.
    Images(ListImages),
    /// Remove images.
    RemoveImages(RemoveImages),
    /// Give an image another name.
    Tag(Tag),
    /// Show how an image was made.
    History(History),
    /// Write images to an archive.
    Save(Save),
    /// Read images from an archive.
    Load(Load),
    /// Make an image of a file system.
    Import(Import),
    /// Remove unused images.
    PruneImages(Prune),
    /// Log in to a registry.
    Login(Login),
    /// Log out of a registry; `None` is the default one.
    Logout(Option<String>),
    /// Make a volume.
    CreateVolume(CreateVolume),
    /// List volumes.
    Volumes(ListVolumes),
    /// Remove volumes.
    RemoveVolumes(RemoveVolumes),
    /// Remove unused volumes.
    PruneVolumes(Prune),
}

/// `--format`; `None` is the verb's own form.
pub type Format = Option<String>;

/// `start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Names or ids; one where it attaches.
    pub containers: Vec<String>,
    /// `--attach`: show output, pass signals on.
    pub attach: bool,
    /// `--interactive`: pass input on.
    pub interactive: bool,
    /// `None` is the configured sequence.
    pub detach_keys: Option<DetachKeys>,
}

/// `stop` and `restart`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Names or ids.
    pub containers: Vec<String>,
    /// `None` is the container's stop signal.
    pub signal: Option<String>,
    /// Seconds until it is killed, -1 for never; `None` is the container's.
    pub timeout: Option<i64>,
}

/// `kill`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Names or ids.
    pub containers: Vec<String>,
    /// Name or number.
    pub signal: String,
}

/// `rm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    /// Names or ids.
    pub containers: Vec<String>,
    /// Kill those that run; a missing one is no fault.
    pub force: bool,
    /// Remove their anonymous volumes too.
    pub volumes: bool,
}

/// `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Name or id.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Do not wait for it.
    pub detach: bool,
    /// `None` is the configured sequence.
    pub detach_keys: Option<DetachKeys>,
    /// Variables on top of the container's.
    pub env: Vec<String>,
    /// Pass input on.
    pub interactive: bool,
    /// On a terminal of its own.
    pub tty: bool,
    /// With every privilege.
    pub privileged: bool,
    /// `None` is the container's.
    pub user: Option<String>,
    /// `None` is the container's.
    pub working_dir: Option<String>,
}

/// `cp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// From where.
    pub source: CopyEnd,
    /// To where.
    pub target: CopyEnd,
    /// Files in the container become those of its user.
    pub archive: bool,
    /// A link is copied as what it leads to.
    pub follow_link: bool,
    /// Say nothing; `None` says nothing where there is no terminal.
    pub quiet: Option<bool>,
}

/// `export`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Name or id.
    pub container: String,
    /// `None` is the standard output.
    pub output: Option<PathBuf>,
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// `CONTAINER:PATH`.
    Container {
        /// Name or id.
        container: String,
        /// Inside it.
        path: String,
    },
    /// A path of this machine.
    Local(String),
    /// `-`: an archive on the standard input or output.
    Stream,
}

/// `attach`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Name or id.
    pub container: String,
    /// Pass input on, if the container takes any.
    pub stdin: bool,
    /// Pass signals on.
    pub signal_proxy: bool,
    /// `None` is the configured sequence.
    pub detach_keys: Option<DetachKeys>,
}

/// `logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// Name or id.
    pub container: String,
    /// Go on until the container ends.
    pub follow: bool,
    /// Not older; `None` is no bound.
    pub since: Option<Moment>,
    /// Not younger; `None` is no bound.
    pub until: Option<Moment>,
    /// Last lines only; `None` is all.
    pub tail: Option<u64>,
    /// Times before lines.
    pub timestamps: bool,
    /// Labels and variables that `--log-opt` chose before lines.
    pub details: bool,
}

/// `ps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListContainers {
    /// Those that do not run too.
    pub all: bool,
    /// Conditions.
    pub filters: Filters,
    /// `--format`.
    pub format: Format,
    /// Last created only; `None` is no bound.
    pub last: Option<usize>,
    /// Full ids and commands.
    pub no_trunc: bool,
    /// Ids only.
    pub quiet: bool,
    /// With the size of the writable layer.
    pub size: bool,
}

/// The kinds of objects that `inspect` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
}

/// `inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspect {
    /// Names or ids.
    pub names: Vec<String>,
    /// `None` tries container, image, volume, in this order.
    pub kind: Option<ObjectKind>,
    /// `--format`.
    pub format: Format,
    /// With the sizes of a container's file system.
    pub size: bool,
    /// Of an image; empty is the host's.
    pub platform: String,
}

/// `port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name or id.
    pub container: String,
    /// Port and protocol in the container; `None` is all.
    pub private_port: Option<(u16, String)>,
}

/// `rename`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Name or id.
    pub container: String,
    /// The new name.
    pub name: String,
}

/// `top`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// Name or id.
    pub container: String,
    /// Options of `ps`; empty is `-ef`.
    pub ps_options: Vec<String>,
}

/// `stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Names or ids; none is all that run.
    pub containers: Vec<String>,
    /// Those that do not run too.
    pub all: bool,
    /// `--format`.
    pub format: Format,
    /// Once only.
    pub no_stream: bool,
    /// Full ids.
    pub no_trunc: bool,
}

/// `container prune`, `image prune`, `volume prune`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    /// Images that have a name, volumes that have one too.
    pub all: bool,
    /// Do not ask.
    pub force: bool,
    /// Conditions.
    pub filters: Filters,
}

/// `pull`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// As the user wrote it.
    pub reference: String,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Empty is the host's.
    pub platform: String,
    /// Print the name alone.
    pub quiet: bool,
}

/// `images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListImages {
    /// `name[:tag]`, with wildcards; `None` is all.
    pub reference: Option<String>,
    /// Intermediate ones too.
    pub all: bool,
    /// With digests.
    pub digests: bool,
    /// Conditions.
    pub filters: Filters,
    /// `--format`.
    pub format: Format,
    /// Full ids.
    pub no_trunc: bool,
    /// Ids only.
    pub quiet: bool,
}

/// `rmi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveImages {
    /// References or ids.
    pub images: Vec<String>,
    /// Those that containers use, too; a missing one is no fault.
    pub force: bool,
    /// Keep what only this image used.
    pub no_prune: bool,
    /// These platforms only; none is all.
    pub platforms: Vec<String>,
}

/// `tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Reference or id.
    pub source: String,
    /// The new reference.
    pub target: String,
}

/// `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Reference or id.
    pub image: String,
    /// `--format`.
    pub format: Format,
    /// Sizes and times for people.
    pub human: bool,
    /// Full ids and commands.
    pub no_trunc: bool,
    /// Ids only.
    pub quiet: bool,
    /// Empty is the host's.
    pub platform: String,
}

/// `save`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// References or ids.
    pub images: Vec<String>,
    /// `None` is the standard output.
    pub output: Option<PathBuf>,
    /// Empty is every one that is here.
    pub platform: String,
}

/// `load`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// `None` is the standard input.
    pub input: Option<PathBuf>,
    /// Empty is every one in the archive.
    pub platform: String,
    /// No progress.
    pub quiet: bool,
}

/// `import`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// A file, a URL, or `-` for the standard input.
    pub source: String,
    /// The name of the image; `None` leaves it without.
    pub repository: Option<String>,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Comment in the history.
    pub message: String,
    /// Empty is the host's.
    pub platform: String,
}

/// `login`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `None` is the default registry.
    pub server: Option<String>,
    /// `None` asks.
    pub username: Option<String>,
    /// Where the password is.
    pub password: Password,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Ask on the terminal.
    Ask,
    /// On the standard input.
    StandardInput,
    /// On the command line.
    Given(String),
}

/// `volume create`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateVolume {
    /// `None` makes one up.
    pub name: Option<String>,
    /// `NAME=value`.
    pub labels: Vec<(String, String)>,
    /// Options of the driver, `local`.
    pub options: Vec<(String, String)>,
}

/// `volume ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListVolumes {
    /// Conditions.
    pub filters: Filters,
    /// `--format`.
    pub format: Format,
    /// Names only.
    pub quiet: bool,
}

/// `volume rm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveVolumes {
    /// Names.
    pub names: Vec<String>,
    /// A missing one is no fault.
    pub force: bool,
}

/// `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// `--format`.
    pub format: Format,
    /// The exit status says whether virtual machines can be run, not processes.
    pub needs_vm: bool,
}
