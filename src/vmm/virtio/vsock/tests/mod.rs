//! Whole conversations between an owner, the device and a guest that these tests play, packet by packet.

mod conversations;
mod endings;
mod flow;
mod guest;
mod hostile;
mod parties;
mod restore;
