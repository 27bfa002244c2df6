//! Who a process runs as: Docker's `user[:group]` resolved by the image's own `/etc/passwd` and `/etc/group`.
//!
//! A text that looks like a number is only ever a number, in canonical decimal form and within range; it never falls
//! back to a name, because an image may carry a user that is called `4294967296` and is root (CVE-2024-40635).

use std::io::{BufRead, BufReader, Read};

use nix::fcntl::OFlag;

use crate::error::{Error, ErrorKind};
use crate::path::RootDir;
use crate::plan::User;

/// Highest id that Docker accepts.
const MAX_ID: u32 = i32::MAX as u32;
/// A user database larger than this many bytes is not read further.
const DATABASE_LIMIT: u64 = 16 << 20;

/// Numbers of a user inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves `user` inside `root`.
pub(crate) fn resolve(user: &User, root: RootDir<'_>) -> Result<Identity, Error> {
    match user {
        User::Ids { uid, gid, additional_gids } => {
            let passwd = read(root, "/etc/passwd")?;
            let home = passwd.iter().filter_map(|line| Account::parse(line)).find(|account| account.uid == *uid);
            Ok(Identity {
                uid: *uid,
                gid: *gid,
                groups: additional_gids.clone(),
                home: home.map_or_else(|| "/".into(), |account| account.home.to_owned()),
            })
        }
        User::Named { spec, group_add } => {
            let passwd = read(root, "/etc/passwd")?;
            let group = if spec.contains(':') || !group_add.is_empty() || !spec.is_empty() {
                read(root, "/etc/group")?
            } else {
                Vec::new()
            };
            by_name(spec, group_add, &passwd, &group)
        }
    }
}

/// Lines of a database; a missing one is empty. The file is opened inside the root and must be a regular one.
fn read(root: RootDir<'_>, path: &str) -> Result<Vec<String>, Error> {
    let opened = match root.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        Ok(fd) => fd,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(Vec::new()),
        Err(error) => return Err(Error::new(format!("open {path}"), crate::error::describe(&error))),
    };
    let file = std::fs::File::from(opened);
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    for line in BufReader::new(file.take(DATABASE_LIMIT)).split(b'\n') {
        let line = line.map_err(|error| Error::new(format!("read {path}"), crate::error::describe(&error)))?;
        lines.push(String::from_utf8_lossy(&line).into_owned());
    }
    Ok(lines)
}

/// One line of passwd(5).
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
        Some(Self { name, uid, gid, home })
    }
}

/// One line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self { name, gid, members: fields.next().unwrap_or("") })
    }
}

/// What the text before or after the colon is.
enum Wanted<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str, what: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            || hexadecimal.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !numeric {
            return Ok(Self::Name(text));
        }
        match text.parse::<u32>() {
            Ok(number) if number <= MAX_ID && number.to_string() == text => Ok(Self::Number(number)),
            _ => Err(Error::of_kind(
                ErrorKind::Other,
                format!("{what} {text}: uids and gids must be in range 0-{MAX_ID}, in plain decimal form"),
            )),
        }
    }
}

fn by_name(spec: &str, group_add: &[String], passwd: &[String], group: &[String]) -> Result<Identity, Error> {
    let (user, group_part) = spec.split_once(':').map_or((spec, ""), |(user, group)| (user, group));
    let accounts = || passwd.iter().filter_map(|line| Account::parse(line));
    let account = match user {
        "" => accounts().find(|account| account.uid == 0),
        _ => match Wanted::parse(user, "user")? {
            Wanted::Number(uid) => accounts().find(|account| account.uid == uid),
            Wanted::Name(name) => Some(accounts().find(|account| account.name == name).ok_or_else(|| {
                Error::new(format!("unable to find user {name}"), "no matching entries in passwd file")
            })?),
        },
    };
    let uid = match (&account, user) {
        (Some(account), _) => account.uid,
        (None, "") => 0,
        (None, number) => number.parse().unwrap_or(0),
    };
    if uid > MAX_ID {
        return Err(Error::new(format!("user {user}"), format!("uids must be in range 0-{MAX_ID}")));
    }
    let mut gid = account.as_ref().map_or(0, |account| account.gid);
    let mut groups = Vec::new();
    if group_part.is_empty() {
        let name = account.as_ref().map(|account| account.name);
        let is_member = |entry: &Group<'_>| name.is_some_and(|name| entry.members.split(',').any(|one| one == name));
        groups.extend(group.iter().filter_map(|line| Group::parse(line)).filter(is_member).map(|entry| entry.gid));
    } else {
        gid = group_id(group_part, group)?;
    }
    for added in group_add {
        groups.push(group_id(added, group)?);
    }
    groups.insert(0, gid);
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|gid| seen.insert(*gid));
    let home = account.map_or_else(|| "/".to_owned(), |account| account.home.to_owned());
    Ok(Identity { uid, gid, groups, home })
}

fn group_id(text: &str, group: &[String]) -> Result<u32, Error> {
    match Wanted::parse(text, "group")? {
        Wanted::Number(gid) => Ok(gid),
        Wanted::Name(name) => group
            .iter()
            .filter_map(|line| Group::parse(line))
            .find(|entry| entry.name == name)
            .map(|entry| entry.gid)
            .ok_or_else(|| Error::new(format!("unable to find group {name}"), "no matching entries in group file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn look_up(spec: &str, add: &[&str]) -> Result<Identity, Error> {
        let passwd = lines(
            "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n4294967296:x:0:0::/:\n\
             2147483648:x:0:0::/:\n-1:x:0:0::/:\n0x0:x:0:0::/:\n00:x:0:0::/:\nhuge:x:4294967295:0::/:",
        );
        let group = lines("root:x:0:\nwheel:x:10:bob,alice\naudio:x:29:bob\n99999999999:x:0:");
        let add: Vec<String> = add.iter().map(|text| (*text).to_owned()).collect();
        by_name(spec, &add, &passwd, &group)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        type Case = (&'static str, &'static [&'static str], u32, u32, &'static [u32], &'static str);
        let cases: [Case; 9] = [
            ("", &[], 0, 0, &[0], "/root"),
            ("root", &[], 0, 0, &[0], "/root"),
            ("bob", &[], 1000, 1001, &[1001, 10, 29], "/home/bob"),
            ("1000", &[], 1000, 1001, &[1001, 10, 29], "/home/bob"),
            ("bob:audio", &[], 1000, 29, &[29], "/home/bob"),
            ("1234", &[], 1234, 0, &[0], "/"),
            ("1234:5678", &[], 1234, 5678, &[5678], "/"),
            ("bob", &["777", "wheel"], 1000, 1001, &[1001, 10, 29, 777], "/home/bob"),
            (":wheel", &[], 0, 10, &[10], "/root"),
        ];
        for (spec, add, uid, gid, groups, home) in cases {
            let found = look_up(spec, add).unwrap();
            let expected = Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn numbers_out_of_range_never_become_names() {
        for spec in
            ["4294967296", "2147483648", "-1", "+1", "0x0", "00", "01", "1:99999999999", "1:-1", "huge", "9:0x0"]
        {
            assert!(look_up(spec, &[]).is_err(), "{spec}");
        }
        assert!(look_up("bob", &["99999999999"]).is_err());
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(
            look_up("eve", &[]).unwrap_err().message,
            "unable to find user eve: no matching entries in passwd file"
        );
        assert_eq!(
            look_up("bob:eve", &[]).unwrap_err().message,
            "unable to find group eve: no matching entries in group file"
        );
    }
}
