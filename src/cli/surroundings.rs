//! What a command line is read in: the environment and the current directory. Passed in, so that parsing is a function
//! of its arguments and tests need not change the process.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

type Lookup = dyn Fn(&str) -> Option<OsString>;

/// The environment variables and the directory of the caller.
pub struct Surroundings {
    variable: Box<Lookup>,
    directory: PathBuf,
}

impl Surroundings {
    /// Those of this process. A directory that was removed is `/`.
    pub fn of_process() -> Self {
        Self {
            variable: Box::new(|name| std::env::var_os(name)),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// Others.
    pub fn new(directory: PathBuf, variable: impl Fn(&str) -> Option<OsString> + 'static) -> Self {
        Self { variable: Box::new(variable), directory }
    }

    /// The value of an environment variable.
    ///
    /// # Errors
    /// The value is not UTF-8: the configuration of a container is JSON and cannot carry it.
    pub fn variable(&self, name: &str) -> Result<Option<String>, String> {
        // The names that a process cannot have would make the standard library answer "not set" too.
        (self.variable)(name)
            .map(|value| value.into_string().map_err(|_| format!("environment variable {name} is not valid UTF-8")))
            .transpose()
    }

    /// The current directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
