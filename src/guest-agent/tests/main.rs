//! The agent at work: over unix sockets instead of vsock and in namespaces instead of a machine, with everything between
//! them real. What needs a machine below it (its mounts, its power, vsock itself) is tested by booting one.
//!
//! The tests need root; as anybody else they say so and do nothing.

mod failures;
mod hostile;
mod lifecycle;
mod network;
mod pods;
mod sockets;
mod streams;
mod support;
mod tenants;
