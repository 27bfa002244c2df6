//! A profile with its conditions, and how it is reduced to one container.

use sbx_container::plan;

/// Architectures that containers run on, as far as a profile is concerned.
#[cfg_attr(not(test), expect(dead_code, reason = "one of them is native; tests use both"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::Amd64;
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Arm64;

    /// As `includes.arches` has it.
    pub(super) const fn docker_name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As `archMap` has it.
    pub(super) const fn libseccomp_name(self) -> &'static str {
        match self {
            Self::Amd64 => "SCMP_ARCH_X86_64",
            Self::Arm64 => "SCMP_ARCH_AARCH64",
        }
    }
}

/// What a profile asks of the container and the kernel that runs it.
pub(super) struct Host<'names> {
    pub(super) architecture: Architecture,
    /// The bounding set.
    pub(super) capabilities: &'names [String],
    /// Major and minor version.
    pub(super) kernel: (u32, u32),
}

/// A profile; its architectures are already those of the host.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) default_action: String,
    pub(super) default_errno: Option<u32>,
    pub(super) architectures: Vec<String>,
    pub(super) flags: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

/// A rule and for whom it is.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) rule: plan::SeccompRule,
    pub(super) includes: Conditions,
    pub(super) excludes: Conditions,
}

/// `includes` or `excludes` of a rule. What is empty says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) capabilities: Vec<String>,
    /// Docker's names.
    pub(super) architectures: Vec<String>,
    pub(super) min_kernel: Option<(u32, u32)>,
}

impl Profile {
    /// The rules that are for this container.
    pub(super) fn reduce(self, host: &Host<'_>) -> plan::Seccomp {
        let rules = self.rules.into_iter().filter(|rule| rule.is_for(host)).map(|rule| rule.rule).collect();
        plan::Seccomp {
            default_action: self.default_action,
            default_errno: self.default_errno,
            architectures: self.architectures,
            flags: self.flags,
            rules,
        }
    }
}

impl Rule {
    /// Included when all of `includes` hold, unless any of `excludes` does.
    fn is_for(&self, host: &Host<'_>) -> bool {
        let Conditions { capabilities, architectures, min_kernel } = &self.includes;
        let included = (architectures.is_empty() || host.is_one_of(architectures))
            && capabilities.iter().all(|name| host.has(name))
            && min_kernel.is_none_or(|version| host.kernel >= version);
        let Conditions { capabilities, architectures, min_kernel } = &self.excludes;
        let excluded = host.is_one_of(architectures)
            || capabilities.iter().any(|name| host.has(name))
            || min_kernel.is_some_and(|version| host.kernel >= version);
        included && !excluded
    }
}

impl Host<'_> {
    fn is_one_of(&self, architectures: &[String]) -> bool {
        architectures.iter().any(|name| name == self.architecture.docker_name())
    }

    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|name| name == capability)
    }
}
