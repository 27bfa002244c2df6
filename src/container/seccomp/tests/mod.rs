//! The compiler against an interpreter, against its definition, against libseccomp and against the kernel.

mod bpf;
mod compiler;
mod differential;
mod kernel;
mod model;
mod reference;
mod sys;
mod table;
