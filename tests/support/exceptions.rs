//! The tests that do not run in VM mode, each with its reason. `docs/differences.md` has the same list for people, and
//! `tests/architecture.rs` holds the two together.

/// Name of a test and why its body cannot be true of a container in a machine of its own.
pub const NOT_IN_VM_MODE: [(&str, &str); 4] = [
    (
        "namespaces_are_shared_with_the_host",
        "a machine has a kernel of its own, and whoever asks for the host's namespaces is refused by name",
    ),
    (
        "the_network_of_the_host_is_joined",
        "a machine has a kernel of its own, and whoever asks for the host's namespaces is refused by name",
    ),
    (
        "every_difference_from_docker_is_explained",
        "Docker and runc share the kernel with their containers; what differs in a machine of its own is told by every_difference_between_the_modes_is_explained",
    ),
    (
        "every_difference_from_runc_is_explained",
        "Docker and runc share the kernel with their containers; what differs in a machine of its own is told by every_difference_between_the_modes_is_explained",
    ),
];

/// Why the test that runs on this thread is not run in VM mode, if it is not.
pub fn reason_of_this_test() -> Option<(String, &'static str)> {
    // libtest names the thread of a test after it.
    let thread = std::thread::current();
    let name = thread.name()?.to_owned();
    let (_, reason) = NOT_IN_VM_MODE.iter().find(|(test, _)| *test == name)?;
    Some((name, reason))
}
