//! The device of one share.
