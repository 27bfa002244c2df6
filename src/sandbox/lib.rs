//! The nouns of sbx: what is asked for, ids, states, the store, and the pure function from spec to plan.
//!
//! The way through: [`resolve::resolve`] makes of a [`config::CreateRequest`] a [`spec::SandboxSpec`], which the
//! [`store::Store`] keeps; [`oci::runtime_config`] makes an OCI configuration of it and [`plan::plan`] a container
//! plan of that. [`inspect::inspect`] shows it all as Docker does.

pub mod capabilities;
pub mod config;
pub mod cpu_list;
pub mod device_rule;
pub mod environment;
pub mod facts;
pub mod health;
pub mod host_config;
pub mod id;
pub mod inspect;
pub mod isolation;
mod kept;
pub mod log_attributes;
pub mod names;
pub mod oci;
pub mod path;
pub mod plan;
mod profile;
pub mod resolve;
pub mod seccomp;
pub mod settings;
pub mod signal;
pub mod size;
pub mod spec;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod timestamp;
pub mod volumes;
