//! What crosses the connection: its bytes, and what bytes of others do to whoever reads them.

mod counting;
mod golden;
mod hostile;
mod samples;
