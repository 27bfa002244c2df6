//! The `sbx` binary: one program under three names.
//!
//! * `sbx-init …` inside a container: the reaper of `--init`, or the keeper of one whose program does not run.
//! * `sbx … supervise ID DUTY`: a container's supervisor.
//! * everything else: the command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use sbx_engine::{Duty, Paths};

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.first().is_some_and(|name| name.as_bytes() == sbx_container::init::NAME.to_bytes()) {
        sbx_container::init::main(arguments);
    }
    let status = match supervised(&arguments) {
        Some((paths, id, duty)) => i32::from(sbx_engine::supervise(&paths, &id, duty).is_err()),
        None => sbx_cli::execute::main(arguments.into_iter().skip(1)),
    };
    std::process::exit(status);
}

/// `--root R --run R --config C supervise ID DUTY`, exactly as the engine puts it.
fn supervised(arguments: &[OsString]) -> Option<(Paths, String, Duty)> {
    let [_, root, root_path, run, run_path, config, config_path, verb, id, duty] = arguments else { return None };
    let duty = Duty::parse(duty.to_str()?)?;
    let ours = root == "--root" && run == "--run" && config == "--config" && verb == "supervise";
    let path = |text: &OsString| PathBuf::from(text);
    ours.then(|| {
        let paths = Paths { root: path(root_path), run: path(run_path), config: path(config_path) };
        (paths, id.to_string_lossy().into_owned(), duty)
    })
}
