//! A pseudo-terminal with somebody at it: types keys, reads the screen, changes the size.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use super::machine::Machine;
use super::output::code;
use super::wait::{DEADLINE, within};

/// A command at a terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Runs `sbx` with a terminal of 24 rows and 80 columns as its standard input, output and error.
    #[track_caller]
    pub fn sbx(machine: &Machine, args: &[&str]) -> Self {
        let inner = machine.sbx_command(args);
        let mut command = Command::new("setsid");
        // A session of its own with the terminal as its controlling terminal, as after a login.
        command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args()).env_clear();
        for (key, value) in inner.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        command.env("TERM", "xterm");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a pseudo-terminal");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a second descriptor"));
        command.stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
        let child = command.spawn().expect("setsid starts");
        drop(command);
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let mut reader = keyboard.try_clone().expect("a second descriptor");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is how a terminal says that nobody has it open any more.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, seen: String::new() }
    }

    /// Types.
    #[track_caller]
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Reads until the screen has shown `text` since the last call, and gives what was shown.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = DEADLINE.saturating_sub(start.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Timeout) => panic!("never on the screen: `{text}`; there is: {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without showing `{text}`; there is: {:?}", self.seen)
                }
            }
        }
    }

    /// Changes the size, as a window manager does.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = format!("rows {rows} cols {columns}");
        let mut stty = Command::new("stty");
        stty.args(size.split(' ')).stdin(Stdio::from(self.keyboard.try_clone().expect("a second descriptor")));
        assert!(stty.status().expect("stty runs").success(), "stty sets the size");
    }

    /// Waits for the end; gives the exit code and what was shown since the last call.
    #[track_caller]
    pub fn finish(mut self) -> (i32, String) {
        let status = within(DEADLINE, "the end of a command at a terminal", || {
            while let Ok(bytes) = self.screen.try_recv() {
                self.seen += &String::from_utf8_lossy(&bytes);
            }
            self.child.try_wait().expect("a child can be waited for")
        });
        while let Ok(bytes) = self.screen.recv_timeout(Duration::from_secs(5)) {
            self.seen += &String::from_utf8_lossy(&bytes);
        }
        (code(status), self.seen)
    }
}
