//! The initial file system of the guest: the agent as `/init` and the console that the kernel opens for it.
//!
//! The format is `newc` of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`: for each file a
//! header of hexadecimal numbers, its name and its content, both padded to four bytes.

use std::fs::File;
use std::io::Read;

use crate::error::Error;

/// An archive in the making.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

/// What stands in the header of one file.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Kind and permissions (inode(7)).
    mode: u32,
    /// Device number of a device node.
    device: (u32, u32),
}

impl Archive {
    fn add(&mut self, name: &str, entry: Entry, content: &[u8]) {
        self.files += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.files, entry.mode, 0, 0, 1, 0, size, 0, 0, entry.device.0, entry.device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The archive with `agent` as `/init`.
pub(crate) fn initramfs(mut agent: File) -> Result<Vec<u8>, Error> {
    let mut program = Vec::new();
    agent.read_to_end(&mut program).map_err(Error::io("read the guest's agent"))?;
    Ok(archive(&program))
}

fn archive(agent: &[u8]) -> Vec<u8> {
    let directory = Entry { mode: 0o040_755, ..Entry::default() };
    let mut archive = Archive { bytes: Vec::with_capacity(agent.len() + 1024), files: 0 };
    archive.add("dev", directory, &[]);
    archive.add("dev/console", Entry { mode: 0o020_600, device: (5, 1) }, &[]);
    archive.add("init", Entry { mode: 0o100_755, ..Entry::default() }, agent);
    archive.add("TRAILER!!!", Entry::default(), &[]);
    archive.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of every entry.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |number: usize| {
                let text = std::str::from_utf8(&bytes[6 + number * 8..][..8]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            let content = bytes[start..start + size].to_vec();
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, u32::try_from(mode).unwrap(), content));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn the_agent_is_init_and_there_is_a_console() {
        let entries = read(&archive(b"\x7fELF!"));
        let names: Vec<&str> = entries.iter().map(|(name, _, _)| name.as_str()).collect();
        assert_eq!(names, ["dev", "dev/console", "init"]);
        assert_eq!(entries[2].1, 0o100_755);
        assert_eq!(entries[2].2, b"\x7fELF!");
    }
}
