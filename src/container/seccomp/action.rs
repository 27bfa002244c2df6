//! Actions and comparison operators by their OCI names.

use super::Error;

/// Value that a program returns to the kernel: an action and 16 bits of data (`linux/seccomp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_THREAD: Self = Self(libc::SECCOMP_RET_KILL_THREAD);
    pub(super) const KILL_PROCESS: Self = Self(libc::SECCOMP_RET_KILL_PROCESS);
    pub(super) const TRAP: Self = Self(libc::SECCOMP_RET_TRAP);
    pub(super) const LOG: Self = Self(libc::SECCOMP_RET_LOG);
    pub(super) const ALLOW: Self = Self(libc::SECCOMP_RET_ALLOW);
    pub(super) const NOTIFY: Self = Self(libc::SECCOMP_RET_USER_NOTIF);
    pub(super) const ENOSYS: Self = Self::errno(libc::ENOSYS as u16);

    pub(super) const fn errno(errno: u16) -> Self {
        Self(libc::SECCOMP_RET_ERRNO | errno as u32)
    }

    pub(super) const fn trace(message: u16) -> Self {
        Self(libc::SECCOMP_RET_TRACE | message as u32)
    }

    /// As runc reads it: the data counts for ERRNO and TRACE only, and is EPERM where it is not given.
    pub(super) fn parse(name: &str, data: Option<u32>) -> Result<Self, Error> {
        let data = data.unwrap_or(libc::EPERM as u32);
        match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Self::KILL_THREAD),
            "SCMP_ACT_KILL_PROCESS" => Ok(Self::KILL_PROCESS),
            "SCMP_ACT_TRAP" => Ok(Self::TRAP),
            "SCMP_ACT_ALLOW" => Ok(Self::ALLOW),
            "SCMP_ACT_LOG" => Ok(Self::LOG),
            "SCMP_ACT_NOTIFY" => Ok(Self::NOTIFY),
            // The kernel has no errno above MAX_ERRNO (4095), and libseccomp takes none from there on.
            "SCMP_ACT_ERRNO" => match u16::try_from(data) {
                Ok(errno) if errno < 4095 => Ok(Self::errno(errno)),
                _ => Err(Error::Data { action: name.to_owned(), data, highest: 4094 }),
            },
            "SCMP_ACT_TRACE" => match u16::try_from(data) {
                Ok(message) => Ok(Self::trace(message)),
                Err(_) => Err(Error::Data { action: name.to_owned(), data, highest: u16::MAX }),
            },
            _ => Err(Error::Action { name: name.to_owned() }),
        }
    }

    /// Whether a call that the profile has never heard of goes through to the kernel.
    pub(super) const fn lets_through(self) -> bool {
        matches!(self.0 & libc::SECCOMP_RET_ACTION_FULL, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)
            || self.0 & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_TRACE
    }
}

/// How an argument is compared (seccomp_rule_add(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    MaskedEqual,
}

impl Operator {
    pub(super) fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "SCMP_CMP_EQ" => Ok(Self::Equal),
            "SCMP_CMP_NE" => Ok(Self::NotEqual),
            "SCMP_CMP_LT" => Ok(Self::Less),
            "SCMP_CMP_LE" => Ok(Self::LessOrEqual),
            "SCMP_CMP_GT" => Ok(Self::Greater),
            "SCMP_CMP_GE" => Ok(Self::GreaterOrEqual),
            "SCMP_CMP_MASKED_EQ" => Ok(Self::MaskedEqual),
            _ => Err(Error::Operator { name: name.to_owned() }),
        }
    }
}
