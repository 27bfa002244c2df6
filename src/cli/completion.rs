//! Completion scripts, written from the tree of commands: verbs, groups and flags. Names of containers and images are not
//! completed: that would start the program at every tab.

use crate::{
    flags::Flag,
    tree::{Entry, GLOBAL_FLAGS, GROUPS, TOP},
};

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }

    /// The script.
    pub fn script(self) -> String {
        match self {
            Shell::Bash => bash(),
            Shell::Zsh => zsh(),
            Shell::Fish => fish(),
        }
    }
}

fn shown(flags: &[&'static [Flag]]) -> Vec<&'static Flag> {
    flags.iter().copied().flatten().filter(|flag| !flag.hidden).collect()
}

fn flag_words(flags: &[&'static [Flag]]) -> String {
    let mut words: Vec<String> = vec!["--help".to_owned()];
    for flag in shown(flags) {
        words.push(format!("--{}", flag.long));
        words.extend(flag.short.map(|letter| format!("-{letter}")));
    }
    words.join(" ")
}

fn names<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>().join(" ")
}

fn top_names() -> String {
    let groups: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    format!("{} {}", names(TOP), groups.join(" "))
}

/// What may follow each command path, as the arms of a shell's `case`.
fn case_arms() -> String {
    let mut arms = format!("    '') words='{} {}' ;;\n", top_names(), flag_words(&[GLOBAL_FLAGS]));
    for entry in TOP {
        arms.push_str(&format!("    '{}') words='{}' ;;\n", entry.name, flag_words(entry.verb.flags)));
    }
    for group in GROUPS {
        arms.push_str(&format!("    '{}') words='{}' ;;\n", group.name, names(group.entries)));
        for entry in group.entries {
            for name in std::iter::once(&entry.name).chain(entry.aliases) {
                let words = flag_words(entry.verb.flags);
                arms.push_str(&format!("    '{} {name}') words='{words}' ;;\n", group.name));
            }
        }
    }
    arms
}

/// Finds the command path in the words before the cursor; `$1` is the list of groups.
/// (`place`, because zsh ties `path` to `PATH`.)
fn path_finder(words: &str, first: &str, last: &str) -> String {
    let groups: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    format!(
        "  place=''\n  for ((i = {first}; i < {last}; i++)); do\n    word=\"${{{words}[i]}}\"\n    case \"$word\" in\n      \
         --root|--run|--config) ((i++)) ;;\n      -*) ;;\n      *)\n        case \"$place\" in\n          '') place=\"$word\" ;;\n          \
         {}) place=\"$place $word\" ;;\n          *) break ;;\n        esac ;;\n    esac\n  done\n",
        groups.join("|")
    )
}

fn bash() -> String {
    format!(
        "# bash completion of sbx\n_sbx() {{\n  local place word words i\n  local current=\"${{COMP_WORDS[COMP_CWORD]}}\"\n{}  \
         case \"$place\" in\n{}    *) words='' ;;\n  esac\n  case \"$place $current\" in\n    \
         \\ *|*' -'*|container\\ *|image\\ *|system\\ *|volume\\ *) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;;\n    \
         *) COMPREPLY=() ;;\n  esac\n}}\ncomplete -o default -F _sbx sbx\n",
        path_finder("COMP_WORDS", "1", "COMP_CWORD"),
        case_arms()
    )
}

fn zsh() -> String {
    format!(
        "#compdef sbx\n# zsh completion of sbx\n_sbx() {{\n  local place word list i\n{}  case \"$place\" in\n{}    \
         *) list='' ;;\n  esac\n  compadd -- ${{=list}}\n  _files\n}}\ncompdef _sbx sbx\n",
        path_finder("words", "2", "CURRENT"),
        case_arms().replace(") words='", ") list='")
    )
}

fn fish() -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut text = String::from("# fish completion of sbx\n");
    let mut line = |condition: &str, rest: String| {
        text.push_str(&format!("complete -c sbx -n '{condition}' {rest}\n"));
    };
    let flag = |flag: &Flag| {
        let letter = flag.short.map_or_else(String::new, |letter| format!(" -s {letter}"));
        let value = if flag.arity == crate::flags::Arity::Switch { "" } else { " -r" };
        format!("-l {}{letter}{value} -d '{}'", flag.long, quoted(flag.help))
    };
    for found in shown(&[GLOBAL_FLAGS]) {
        line("__fish_use_subcommand", flag(found));
    }
    for group in GROUPS {
        line("__fish_use_subcommand", format!("-f -a {} -d '{}'", group.name, quoted(group.about)));
        let all: Vec<&str> = group.entries.iter().map(|entry| entry.name).collect();
        for entry in group.entries {
            let here = format!(
                "__fish_seen_subcommand_from {}; and not __fish_seen_subcommand_from {}",
                group.name,
                all.join(" ")
            );
            line(&here, format!("-f -a {} -d '{}'", entry.name, quoted(entry.verb.about)));
            for found in shown(entry.verb.flags) {
                let here = format!(
                    "__fish_seen_subcommand_from {}; and __fish_seen_subcommand_from {}",
                    group.name, entry.name
                );
                line(&here, flag(found));
            }
        }
    }
    let groups: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    for entry in TOP {
        line("__fish_use_subcommand", format!("-f -a {} -d '{}'", entry.name, quoted(entry.verb.about)));
        for found in shown(entry.verb.flags) {
            let here = format!(
                "__fish_seen_subcommand_from {}; and not __fish_seen_subcommand_from {}",
                entry.name,
                groups.join(" ")
            );
            line(&here, flag(found));
        }
    }
    text
}
