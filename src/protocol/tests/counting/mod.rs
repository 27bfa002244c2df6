//! How much memory a piece of work takes at most.

mod sys;

pub(crate) use sys::peak_of;
