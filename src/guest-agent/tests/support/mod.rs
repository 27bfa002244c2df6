//! What the tests stand on: an agent that runs, a host's side of the conversation, and plans.

pub(crate) mod agent;
pub(crate) mod plan;
pub(crate) mod talk;

pub(crate) use agent::Agent;
pub(crate) use plan::{create_request, exec_request, id};
pub(crate) use talk::{Control, Session};
