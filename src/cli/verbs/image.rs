//! The verbs of images and registries.

use super::{
    Count, Verb, filter_flag, filters, format_flag, list::of_names, list_format_flag, operand, platform, platform_flag,
    prune_filter_flag,
};
use crate::{
    command::{
        Command, History, Import, Inspect, ListImages, Load, Login, ObjectKind, Password, Prune, Pull, RemoveImages,
        Save, Tag,
    },
    error::Fault,
    flags::{Flag, parse::Operands},
};

pub(crate) static PULL: Verb = Verb {
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    flags: &[&[
        Flag::switch("all-tags", "Download every tag of the repository").short('a'),
        Flag::switch("disable-content-trust", "Skip the verification of image signatures").default("true"),
        platform_flag("Platform of the image, os[/arch[/variant]]"),
        Flag::switch("quiet", "No progress").short('q'),
    ]],
    operands: Operands::Mixed,
    count: Count::Exactly(1),
    read: |parsed, _| {
        if parsed.switch("disable-content-trust") == Some(false) {
            return Err("--disable-content-trust=false is not supported: image signatures are not verified; name the \
                        image by its digest"
                .to_owned()
                .into());
        }
        Ok(Command::Pull(Pull {
            reference: operand(parsed, 0),
            all_tags: parsed.on("all-tags"),
            platform: platform(parsed)?,
            quiet: parsed.on("quiet"),
        }))
    },
};

pub(crate) static LIST: Verb = Verb {
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    flags: &[&[
        Flag::switch("all", "Show intermediate images too").short('a'),
        Flag::switch("digests", "Show digests"),
        filter_flag(),
        list_format_flag(),
        Flag::switch("no-trunc", "Do not shorten"),
        Flag::switch("quiet", "Only show image IDs").short('q'),
        Flag::switch("tree", "Show platforms as a tree").hidden(),
    ]],
    operands: Operands::Mixed,
    count: Count::AtMost(1),
    read: |parsed, _| {
        if parsed.on("tree") {
            return Err("--tree is not supported: use inspect to see the platforms of an image".to_owned().into());
        }
        Ok(Command::Images(ListImages {
            reference: parsed.operands.first().cloned(),
            all: parsed.on("all"),
            digests: parsed.on("digests"),
            filters: filters(parsed)?,
            format: parsed.filled("format"),
            no_trunc: parsed.on("no-trunc"),
            quiet: parsed.on("quiet"),
        }))
    },
};

pub(crate) static REMOVE: Verb = Verb {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    flags: &[&[
        Flag::switch("force", "Remove it even if it has other names or is in use").short('f'),
        Flag::switch("no-prune", "Keep parents without a name"),
        Flag::list("platform", "Remove this platform only, os[/arch[/variant]]").checked("strings", |_| Ok(())),
    ]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        let given = parsed.list("platform").iter().flat_map(|text| text.split(','));
        let platforms: Result<Vec<String>, String> = given.map(crate::run::platform).collect();
        Ok(Command::RemoveImages(RemoveImages {
            images: parsed.operands.clone(),
            force: parsed.on("force"),
            no_prune: parsed.on("no-prune"),
            platforms: platforms.map_err(Fault::Plain)?,
        }))
    },
};

pub(crate) static TAG: Verb = Verb {
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::Exactly(2),
    read: |parsed, _| Ok(Command::Tag(Tag { source: operand(parsed, 0), target: operand(parsed, 1) })),
};

pub(crate) static HISTORY: Verb = Verb {
    usage: "[OPTIONS] IMAGE",
    about: "Show how an image was made",
    flags: &[&[
        list_format_flag(),
        Flag::switch("human", "Sizes and times for people").short('H').default("true"),
        Flag::switch("no-trunc", "Do not shorten"),
        platform_flag("Of this platform, os[/arch[/variant]]"),
        Flag::switch("quiet", "Only show image IDs").short('q'),
    ]],
    operands: Operands::Mixed,
    count: Count::Exactly(1),
    read: |parsed, _| {
        Ok(Command::History(History {
            image: operand(parsed, 0),
            format: parsed.filled("format"),
            human: parsed.switch("human").unwrap_or(true),
            no_trunc: parsed.on("no-trunc"),
            quiet: parsed.on("quiet"),
            platform: platform(parsed)?,
        }))
    },
};

pub(crate) static SAVE: Verb = Verb {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (to STDOUT by default)",
    flags: &[&[
        Flag::text("output", "Write to a file, not to STDOUT").short('o'),
        platform_flag("Save this platform only, os[/arch[/variant]]"),
    ]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        Ok(Command::Save(Save {
            images: parsed.operands.clone(),
            output: parsed.filled("output").map(Into::into),
            platform: platform(parsed)?,
        }))
    },
};

pub(crate) static LOAD: Verb = Verb {
    usage: "[OPTIONS]",
    about: "Load images from a tar archive or STDIN",
    flags: &[&[
        Flag::text("input", "Read from a file, not from STDIN").short('i'),
        platform_flag("Load this platform only, os[/arch[/variant]]"),
        Flag::switch("quiet", "No progress").short('q'),
    ]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| {
        Ok(Command::Load(Load {
            input: parsed.filled("input").map(Into::into),
            platform: platform(parsed)?,
            quiet: parsed.on("quiet"),
        }))
    },
};

pub(crate) static IMPORT: Verb = Verb {
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Make an image of a file system in a tar archive",
    flags: &[&[
        Flag::list("change", "Apply an instruction of a Dockerfile to the image").short('c'),
        Flag::text("message", "Comment in the image's history").short('m'),
        platform_flag("Platform of the image, os[/arch[/variant]]"),
    ]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        if let Some(extra) = parsed.operands.get(2) {
            return Err(format!("unexpected argument {extra}: import takes a source and a name").into());
        }
        Ok(Command::Import(Import {
            source: operand(parsed, 0),
            repository: parsed.operands.get(1).cloned(),
            changes: parsed.list("change").to_vec(),
            message: parsed.text("message").to_owned(),
            platform: platform(parsed)?,
        }))
    },
};

pub(crate) static INSPECT: Verb = Verb {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Show all that is known of images",
    flags: &[&[format_flag(), platform_flag("Of this platform, os[/arch[/variant]]")]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        let kind = Some(ObjectKind::Image);
        Ok(Command::Inspect(Inspect { kind, platform: platform(parsed)?, ..of_names(parsed) }))
    },
};

pub(crate) static PRUNE: Verb = Verb {
    usage: "[OPTIONS]",
    about: "Remove unused images",
    flags: &[&[
        Flag::switch("all", "Remove those that have a name too").short('a'),
        prune_filter_flag(),
        Flag::switch("force", "Do not ask").short('f'),
    ]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| {
        let (all, force) = (parsed.on("all"), parsed.on("force"));
        Ok(Command::PruneImages(Prune { all, force, filters: filters(parsed)? }))
    },
};

pub(crate) static LOGIN: Verb = Verb {
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry",
    flags: &[&[
        Flag::text("password", "Password or access token").short('p'),
        Flag::switch("password-stdin", "Take the password or access token from STDIN"),
        Flag::text("username", "Username").short('u'),
    ]],
    operands: Operands::Mixed,
    count: Count::AtMost(1),
    read: |parsed, _| {
        let from_stdin = parsed.on("password-stdin");
        let password = match parsed.filled("password") {
            Some(_) if from_stdin => {
                return Err(Fault::Plain(
                    "conflicting options: cannot specify both --password and --password-stdin".to_owned(),
                ));
            }
            Some(password) => Password::Given(password),
            None if from_stdin => Password::StandardInput,
            None => Password::Ask,
        };
        let username = parsed.filled("username");
        if from_stdin && username.is_none() {
            return Err(Fault::Plain("the --password-stdin option requires --username to be set".to_owned()));
        }
        Ok(Command::Login(Login { server: parsed.operands.first().cloned(), username, password }))
    },
};

pub(crate) static LOGOUT: Verb = Verb {
    usage: "[SERVER]",
    about: "Log out from a registry",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::AtMost(1),
    read: |parsed, _| Ok(Command::Logout(parsed.operands.first().cloned())),
};
