//! What the end-to-end suites stand on: a private machine for each test, the `sbx` binary in it, images made without a
//! registry, a census of everything that could leak, and terminals.
//!
//! A test is a closure over a [`Machine`]. The machine is namespaces of its own (`scripts/private-machine`), so tests
//! may run side by side and a test that dies leaves nothing. When the closure returns, every container is removed and
//! the census must be what it was before the first one: each test is a leak test. In VM mode a machine that has passed it goes
//! to the next test.
//!
//! With `SBX_TEST_PEER=docker` the same bodies run against a `dockerd` inside the machine. That is how the suites
//! themselves are checked: what they expect of sbx, Docker does.

#![allow(dead_code, reason = "every suite uses its own part of this")]
#![allow(unused_imports, reason = "likewise")]
#![allow(unreachable_pub, reason = "a module of test binaries has no crate to be public to")]

pub mod census;
pub mod double;
pub mod exceptions;
pub mod image;
pub mod machine;
pub mod output;
pub mod peer;
pub mod registry;
pub mod sys;
pub mod tarball;
pub mod terminal;
pub mod unix_socket;
pub mod wait;

pub use image::{BUSYBOX, Image};
pub use machine::{Machine, each_mode, machine};
pub use output::Output;
pub use wait::{DEADLINE, eventually};

/// Says why a test is not run, past libtest's capture, in the form that `scripts/test` counts.
pub fn skip(test: &str, reason: &str) {
    use std::io::Write;
    // A test whose reason cannot be told has not been skipped but lost.
    writeln!(std::io::stderr(), "\nskipped {test}: {reason}").expect("stderr takes the reason");
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(more).any(|folder| folder.join(program).exists())
}
