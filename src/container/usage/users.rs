//! Names of users, as the machine that shows them knows them.
//!
//! `docker top` names the users of the machine that it is typed on, not those of the image. So a [`ProcessRow`] says a
//! number where it is made, and whoever shows it asks its own user database.

use std::collections::HashMap;
use std::fs;

use super::ProcessRow;

/// Who is who in `/etc/passwd` (passwd(5)).
#[derive(Clone, Debug, Default)]
pub struct UserNames {
    names: HashMap<u32, String>,
}

impl UserNames {
    /// Reads this machine's. Names are for show only: without the file there are none.
    #[must_use]
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    fn parse(passwd: &str) -> Self {
        let mut names = HashMap::new();
        for (uid, name) in passwd.lines().filter_map(user) {
            // getpwuid(3) finds the first.
            names.entry(uid).or_insert(name);
        }
        Self { names }
    }

    /// Puts names where numbers are; a user without a name keeps the number.
    pub fn name(&self, rows: &mut [ProcessRow]) {
        for row in rows {
            if let Some(name) = self.names.get(&row.uid) {
                row.user.clone_from(name);
            }
        }
    }
}

fn user(line: &str) -> Option<(u32, String)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_first_name_or_their_number() {
        let names =
            UserNames::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\nbroken\nbob:x:1000:1000:::\n");
        let row = |uid: u32| ProcessRow { uid, user: uid.to_string(), ..ProcessRow::default() };
        let mut rows = [row(0), row(1000), row(7)];
        names.name(&mut rows);
        assert_eq!(rows.map(|row| row.user), ["root", "bob", "7"]);
    }
}
