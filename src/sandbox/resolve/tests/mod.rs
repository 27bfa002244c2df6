//! Requests, one by one: what is made of them and how they are refused.

mod accepted;
mod image;
mod mounts;
mod refused;

use crate::testing::{Case, ID, strings};
