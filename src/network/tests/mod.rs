//! Tests that need network namespaces of their own: a host, its neighbour and containers.

mod attachment;
mod cost;
mod crash;
mod host;
pub(crate) mod lab;
mod lan;
mod ports;
mod tap;
