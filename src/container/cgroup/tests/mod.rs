//! Tests against this kernel and against directories that look like it.
//!
//! The real ones need root and run on whatever this system has mounted; one that needs what is not there says so and
//! passes.

mod fake_v2;
mod layouts;
mod live;
mod program;
mod real_limits;
mod real_v2;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Cgroup, Hierarchies, Version};
use crate::plan::{CgroupPlan, Resources};

/// A parent cgroup of one test; everything below goes with it.
struct Parent {
    hierarchies: Hierarchies,
    name: String,
}

impl Parent {
    fn new() -> Parent {
        Parent::among(Hierarchies::detect().unwrap())
    }

    /// Only the hierarchies of one version; `None`, with a note, when the system has none.
    fn only(version: Version) -> Option<Parent> {
        let list: Vec<_> =
            Hierarchies::detect().unwrap().iter().filter(|found| found.version == version).cloned().collect();
        if list.is_empty() {
            eprintln!("skipped: no {version:?} hierarchy is mounted");
            return None;
        }
        Some(Parent::among(Hierarchies::fixture(list)))
    }

    fn among(hierarchies: Hierarchies) -> Parent {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sbx-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Parent { hierarchies, name }
    }

    fn plan(&self, name: &str, resources: Resources) -> CgroupPlan {
        CgroupPlan { path: format!("{}/{name}", self.name), resources }
    }

    fn create(&self, name: &str, resources: Resources) -> Cgroup {
        Cgroup::create(&self.hierarchies, &self.plan(name, resources)).unwrap()
    }

    /// The file of a cgroup in the hierarchy of a v1 controller.
    fn v1(&self, name: &str, controller: &str, file: &str) -> Option<PathBuf> {
        let found = self.hierarchies.v1(controller);
        if found.is_none() {
            eprintln!("skipped: {controller} is not in a v1 hierarchy");
        }
        Some(found?.mount_point.join(&self.name).join(name).join(file))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let cgroup = Cgroup::open(&self.hierarchies, &self.name).unwrap();
        let killed = cgroup.kill();
        let removed = cgroup.remove();
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
        }
    }
}

/// A shell that runs its script only once it is in the cgroup.
fn run_in(cgroup: &Cgroup, script: &str) -> Child {
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("read gate; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    cgroup.add(i32::try_from(child.id()).unwrap()).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

/// Waits for something that another process does.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn text(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}
