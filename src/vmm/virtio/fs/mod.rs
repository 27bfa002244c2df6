//! virtio-fs: a directory or a single file of the host, served to the guest by FUSE, in this process.
//!
//! ```text
//!  queues ──▶ device ──▶ server: request ─▶ names, files, data, attributes, locks …
//!                          │                        │
//!                          ▼                        ▼
//!                        nodes: who is who ──▶ host: descriptors and single names, never a path
//! ```
//!
//! **What the guest can reach.** The root of the share and what is found from it one name at a time. A symbolic link is read
//! to the guest, which follows it in its own tree; `..` and names with a slash are refused; a node is a descriptor, so that
//! what the host renames in the meantime leads nowhere else. Only regular files and directories are ever opened: a pipe,
//! socket or device in a share is one of the guest's kernel. As with a bind mount, a directory that the host moves out of the
//! share stays in the hands of who holds it.
//!
//! **Mounts below the share** belong to it, as with Docker's recursive binds. Their roots are marked, so that the guest mounts
//! them as file systems of their own (`/proc/mounts`, `st_dev`) when a program walks into them. A bind mount of the same file
//! system has the same `st_dev` on the host, and its own in the guest.
//!
//! **Coherence.** The guest believes names and attributes for as long as [`share::Caching`] says, by default not at all, and
//! throws data away that it has cached when size or modification time is another. Data are written through. So what the host
//! changes is seen by the next `stat`, `open` and `read` of the guest, and the other way round; only a file that both sides
//! map shared and write at the same time stays undefined, as between two machines.
//!
//! **Identity.** What the guest makes belongs to the user and group of its caller; the thread needs `CAP_SETUID`,
//! `CAP_SETGID` for that, and `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_FOWNER`, `CAP_FSETID`, `CAP_MKNOD`, `CAP_SETFCAP` to do for the
//! guest's users what its kernel has allowed them. A group that the caller has only as a supplementary one needs no word from
//! the guest: who may keep set-group-id in it is the guest's decision, and the thread may.
//!
//! **Not as on the host**: `ioctl` (file flags, `lsattr`), `F_GETLK` of a lock that a process of the host holds (its process is
//! 0), deadlocks of locks (not noticed), `O_DIRECT` (data pass the host's page cache), leases, and watching files
//! (`inotify` sees what the guest does, not what the host does).

pub mod abi;
mod device;
mod host;
mod nodes;
pub mod server;
pub mod share;
#[cfg(test)]
mod tests;

pub use device::Fs;
pub use server::Server;
pub use share::{Access, Caching, Limits, Root, Share, ShareError};
