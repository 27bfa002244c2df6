//! The verbs that carry a container's files out, or others in: `cp`, `export`.

use super::{Count, Verb, operand};
use crate::{
    command::{Command, Copy, CopyEnd, Export},
    error::Fault,
    flags::{Flag, parse::Operands},
};

pub(crate) static COPY: Verb = Verb {
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tsbx cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem",
    flags: &[&[
        Flag::switch("archive", "Archive mode (give copied files to the container's user)").short('a'),
        Flag::switch("follow-link", "Always follow symbol link in SRC_PATH").short('L'),
        Flag::switch("quiet", "Say nothing when it is done, as where no terminal is attached").short('q'),
    ]],
    operands: Operands::Mixed,
    count: Count::Exactly(2),
    read: |parsed, _| {
        let [source, target] = parsed.operands.as_slice() else {
            return Err(Fault::Plain("cp takes a source and a destination".to_owned()));
        };
        for (what, operand) in [("source", source), ("destination", target)] {
            if operand.is_empty() {
                return Err(Fault::Plain(format!("{what} can not be empty")));
            }
        }
        let (source, target) = (end(source), end(target));
        let in_container = |end: &CopyEnd| matches!(end, CopyEnd::Container { .. });
        match (in_container(&source), in_container(&target)) {
            (true, true) => return Err(Fault::Plain("copying between containers is not supported".to_owned())),
            (false, false) => {
                return Err(Fault::Plain("must specify at least one container source".to_owned()));
            }
            _ => {}
        }
        Ok(Command::Copy(Copy {
            source,
            target,
            archive: parsed.on("archive"),
            follow_link: parsed.on("follow-link"),
            quiet: parsed.switch("quiet"),
        }))
    },
};

pub(crate) static EXPORT: Verb = Verb {
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    flags: &[&[Flag::text("output", "Write to a file, not to STDOUT").short('o')]],
    operands: Operands::Mixed,
    count: Count::Exactly(1),
    read: |parsed, _| {
        let output = parsed.filled("output").map(Into::into);
        Ok(Command::Export(Export { container: operand(parsed, 0), output }))
    },
};

/// `CONTAINER:PATH`; a path that begins with a slash or a dot is never one.
fn end(operand: &str) -> CopyEnd {
    if operand == "-" {
        return CopyEnd::Stream;
    }
    match operand.split_once(':') {
        Some((container, path)) if !container.is_empty() && !operand.starts_with(['/', '.']) => {
            CopyEnd::Container { container: container.to_owned(), path: path.to_owned() }
        }
        _ => CopyEnd::Local(operand.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_in_a_container_where_it_names_one() {
        let there = |container: &str, path: &str| CopyEnd::Container { container: container.into(), path: path.into() };
        assert_eq!(end("web:/etc"), there("web", "/etc"));
        assert_eq!(end("web:a:b"), there("web", "a:b"));
        assert_eq!(end("web:"), there("web", ""));
        for local in ["/a:b", "./a:b", "../a:b", ":/x", "plain"] {
            assert_eq!(end(local), CopyEnd::Local(local.into()), "{local}");
        }
        assert_eq!(end("-"), CopyEnd::Stream);
    }
}
