//! Tests of the server by a client that speaks the protocol, one file for each kind of promise.

mod client;
mod confinement;
mod data;
mod device;
mod hostile;
mod identity;
mod limits;
mod locks;
mod names;
mod restore;
mod single_file;

/// Whether the test runs as root, which it needs; prints why it is skipped where not.
fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped {test}: it acts as several users, which takes root");
    }
    root
}
