//! The tables of numbers.

use super::super::arch::Arch;
use super::super::table::{ARM_PRIVATE, ROWS, X32_OWN, find};

/// Every name.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.0).chain(ARM_PRIVATE.iter().map(|private| private.0))
}

#[test]
fn the_tables_are_sorted_for_binary_search() {
    assert!(ROWS.is_sorted_by(|a, b| a.0 < b.0));
    assert!(X32_OWN.is_sorted_by(|a, b| a.0 < b.0));
    assert!(X32_OWN.iter().all(|own| find(own.0).is_some_and(|call| call.number(Arch::X86_64).is_some())));
}

#[test]
fn the_numbers_of_the_running_architecture_are_those_of_libc() {
    for (name, number) in [
        ("read", libc::SYS_read),
        ("clone3", libc::SYS_clone3),
        ("faccessat2", libc::SYS_faccessat2),
        ("futex_waitv", libc::SYS_futex_waitv),
        ("prctl", libc::SYS_prctl),
    ] {
        let found = find(name).and_then(|call| call.number(Arch::NATIVE));
        assert_eq!(found.map(i64::from), Some(number), "{name}");
    }
}
