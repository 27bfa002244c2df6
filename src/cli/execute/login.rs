//! `login` and `logout`.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use sbx_engine::Engine;
use sbx_image::LoginRequest;

use super::{Fault, Outcome, print, tell};
use crate::command::{Login, Password};
use crate::terminal::RawMode;

/// Longest password that is read, in bytes: registries' tokens have a few thousand.
const LONGEST: u64 = 1 << 20;
/// Status of a program that ^C has ended.
const INTERRUPTED: u8 = 130;

/// `login`.
pub(super) fn login(engine: &Engine, command: &Login) -> Outcome {
    if matches!(command.password, Password::Given(_)) {
        tell("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let asks = command.username.is_none() || command.password == Password::Ask;
    if asks && !io::stdin().is_terminal() {
        return Err(Fault::plain("Error: Cannot perform an interactive login from a non TTY device"));
    }
    let username = match &command.username {
        Some(username) => username.clone(),
        None => ask_username()?,
    };
    let password = match &command.password {
        Password::Given(password) => password.clone(),
        Password::StandardInput => read_password(io::stdin().lock())?,
        Password::Ask => ask_password()?,
    };
    if password.is_empty() {
        return Err(Fault::plain("password is empty"));
    }
    let request = LoginRequest { server: command.server.clone().unwrap_or_default(), username, password };
    let done = sbx_image::login(&request, &engine.registries()).map_err(sbx_engine::Error::from)?;
    if let Some(warning) = done.warning() {
        tell(&format!("\n{warning}\n"));
    }
    print(&done.message)
}

/// `logout`.
pub(super) fn logout(engine: &Engine, server: Option<&str>) -> Outcome {
    let line = sbx_image::logout(server.unwrap_or_default(), &engine.registries()).map_err(sbx_engine::Error::from)?;
    print(&line)
}

/// All that comes, without the end of the last line.
fn read_password(input: impl Read) -> Result<String, Fault> {
    let mut text = String::new();
    input.take(LONGEST).read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn ask_username() -> Result<String, Fault> {
    ask("Username: ")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let name = line.trim();
    if name.is_empty() { Err(Fault::plain("Error: Non-null Username Required")) } else { Ok(name.to_owned()) }
}

fn ask(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A terminal in raw mode shows nothing of what is typed, and ^C comes as a key, so that the mode always ends.
fn ask_password() -> Result<String, Fault> {
    ask("Password: ")?;
    let stdin = io::stdin();
    let typed = {
        let _raw = RawMode::enter(stdin.as_fd())?;
        read_keys(stdin.lock())
    };
    ask("\n")?;
    match typed? {
        Some(password) => Ok(password),
        None => Err(Fault::with_status("", INTERRUPTED)),
    }
}

/// What was typed up to the end of the line; `None` after ^C.
#[allow(clippy::unbuffered_bytes, reason = "not a key beyond the line may be taken")]
fn read_keys(input: impl Read) -> Result<Option<String>, Fault> {
    let mut typed = Vec::new();
    for byte in input.take(LONGEST).bytes() {
        match byte? {
            b'\r' | b'\n' | 0x04 => break,
            0x03 => return Ok(None),
            0x15 => typed.clear(),
            0x08 | 0x7f => {
                // The bytes of one character.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte => typed.push(byte),
        }
    }
    String::from_utf8(typed).map(Some).map_err(|_| Fault::plain("the password is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Option<String> {
        read_keys(bytes).unwrap_or_else(|fault| panic!("{}", fault.message))
    }

    #[test]
    fn keys_edit_the_password() {
        assert_eq!(keys(b"secret\rmore"), Some("secret".to_owned()));
        assert_eq!(keys("aé\x7fb\n".as_bytes()), Some("ab".to_owned()));
        assert_eq!(keys(b"\x7fwrong\x15right\x04"), Some("right".to_owned()));
        assert_eq!(keys(b"abc\x03"), None);
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_a_password() {
        for (input, password) in [("secret\n", "secret"), ("secret\r\n", "secret"), ("two\nlines\n\n", "two\nlines\n")]
        {
            assert_eq!(read_password(input.as_bytes()).ok().as_deref(), Some(password));
        }
    }
}
