//! Trees that go through an archive, and archives that want to go elsewhere. They need root, for owners and devices.

mod round_trip;
mod strangers;
mod trees;
