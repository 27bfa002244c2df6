//! The default profile beside what is known of Docker's, and profiles in JSON.

use std::collections::BTreeSet;

use sbx_container::seccomp;

use super::*;

const KERNEL: (u32, u32) = (6, 12);

fn defaults() -> Vec<String> {
    crate::capabilities::DEFAULT.map(str::to_owned).to_vec()
}

fn all() -> Vec<String> {
    crate::capabilities::all(40)
}

fn host(capabilities: &[String], kernel: (u32, u32), architecture: Architecture) -> Host<'_> {
    Host { architecture, capabilities, kernel }
}

fn for_architecture(architecture: Architecture, capabilities: &[String], kernel: (u32, u32)) -> plan::Seccomp {
    default::profile(architecture).reduce(&host(capabilities, kernel, architecture))
}

/// Names with a rule that allows them, on whatever condition.
fn allowed(filter: &plan::Seccomp) -> BTreeSet<&str> {
    let rules = filter.rules.iter().filter(|rule| rule.action == "SCMP_ACT_ALLOW");
    rules.flat_map(|rule| &rule.names).map(String::as_str).collect()
}

/// FNV-1a over the sorted names, each with a line feed.
fn fingerprint(names: &BTreeSet<&str>) -> u64 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Recorded from `default.json` of github.com/moby/profiles at cd3bed8061c7: rules that apply (and five more, as we
/// have eight for `socket` where Docker has three), calls allowed on whatever condition, and the fingerprint of these.
#[test]
fn the_default_profile_is_dockers() {
    use Architecture::{Amd64, Arm64};
    for (architecture, capabilities, kernel, rules, calls, recorded) in [
        (Amd64, defaults(), (4, 7), 19, 367, 0x5afc_882d_ae5e_c454),
        (Amd64, defaults(), (6, 12), 20, 370, 0x19a9_5860_aeec_ea7a),
        (Amd64, vec![], (4, 7), 18, 366, 0xea1c_42e6_a20b_bcaf),
        (Amd64, vec![], (6, 12), 19, 369, 0x5e69_27b8_9e80_bdc9),
        (Amd64, all(), (4, 7), 30, 415, 0xc1f4_33f3_7475_6b54),
        (Amd64, all(), (6, 12), 31, 415, 0xc1f4_33f3_7475_6b54),
        (Arm64, defaults(), (6, 12), 19, 374, 0x1ed5_3693_8b97_1273),
        (Arm64, all(), (6, 12), 30, 419, 0xd500_db7f_73ca_13fb),
    ] {
        let filter = for_architecture(architecture, &capabilities, kernel);
        let allowed = allowed(&filter);
        let found = (filter.rules.len(), allowed.len(), fingerprint(&allowed));
        assert_eq!(
            found,
            (rules, calls, recorded),
            "{architecture:?}, {} capabilities, {kernel:?}",
            capabilities.len()
        );
        assert_eq!(filter.rules[0].names.len(), 361);
        assert_eq!((filter.default_action.as_str(), filter.default_errno), ("SCMP_ACT_ERRNO", Some(1)));
    }
    let architectures = |of| for_architecture(of, &[], KERNEL).architectures;
    assert_eq!(architectures(Amd64), ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    assert_eq!(architectures(Arm64), ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
}

#[test]
fn what_docker_keeps_from_containers_is_not_in_it() {
    let filter = default_profile(&all(), KERNEL);
    let allowed = allowed(&filter);
    for name in
        ["io_uring_setup", "io_uring_enter", "keyctl", "add_key", "userfaultfd", "swapon", "kexec_load", "nfsservctl"]
    {
        assert!(!allowed.contains(name), "{name} is allowed");
    }
    let confined = default_profile(&defaults(), KERNEL);
    let clone3 = confined.rules.iter().find(|rule| rule.names == ["clone3"]).expect("is there");
    assert_eq!((clone3.action.as_str(), clone3.errno), ("SCMP_ACT_ERRNO", Some(38)));
    let clone = confined.rules.iter().find(|rule| rule.names == ["clone"]).expect("is there");
    assert_eq!((clone.args[0].op.as_str(), clone.args[0].value), ("SCMP_CMP_MASKED_EQ", 2_114_060_288));
}

#[test]
fn sockets_are_allowed_by_the_family_that_the_kernel_sees() {
    let confined = default_profile(&defaults(), KERNEL);
    let rules: Vec<_> = confined.rules.iter().filter(|rule| rule.names == ["socket"]).collect();
    let allowed = |family: u64| {
        let mut args = rules.iter().flat_map(|rule| &rule.args);
        args.any(|arg| arg.index == 0 && family & arg.value == arg.value_two)
    };
    assert!(rules.iter().all(|rule| rule.args.len() == 1 && rule.args[0].op == "SCMP_CMP_MASKED_EQ"));
    for family in 0..64 {
        let expected = family != 38 && family != 40;
        assert_eq!(allowed(family), expected, "family {family}");
        assert_eq!(allowed(family | 1 << 32), expected, "family {family} and a bit that the kernel drops");
    }
    assert!(!allowed(64) && !allowed(u64::MAX));
}

#[test]
fn the_default_profile_compiles_for_every_container() {
    for capabilities in [vec![], defaults(), all()] {
        for kernel in [(4, 7), KERNEL] {
            let program = seccomp::compile(&default_profile(&capabilities, kernel)).expect("compiles");
            assert!(program.instructions().len() < 1200, "{} instructions", program.instructions().len());
            assert!(!program.wants_listener());
        }
    }
}

/// `sbx-container` holds it against libseccomp and the kernel. To renew it after a change of the table, run this
/// test with `RECORD` set.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_profile_that_the_container_tests_use_is_the_default_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../container/seccomp/tests/docker.json");
    let filter = default_profile(&defaults(), KERNEL);
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(path, serde_json::to_string(&filter).expect("serialises") + "\n").expect("write it");
    }
    let recorded = std::fs::read_to_string(path).expect("read it");
    assert_eq!(serde_json::from_str::<plan::Seccomp>(&recorded).expect("is a filter"), filter);
}

const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
        {"name": "clone", "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        ], "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {"minKernel": "4.8"}},
        {"names": ["mount"], "action": "SCMP_ACT_TRACE", "errnoRet": 7, "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {"names": ["old"], "action": "SCMP_ACT_LOG", "excludes": {"minKernel": "5.0"}},
        {"names": ["amd"], "action": "SCMP_ACT_TRAP", "includes": {"arches": ["amd64"]}},
        {"names": ["arm"], "action": "SCMP_ACT_TRAP", "includes": {"arches": ["arm64"]}}
    ]
}"#;

fn names(capabilities: &[&str], kernel: (u32, u32), architecture: Architecture) -> Vec<String> {
    let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    let profile = document::parse(PROFILE, architecture).expect("is a profile");
    let filter = profile.reduce(&host(&capabilities, kernel, architecture));
    filter.rules.into_iter().flat_map(|rule| rule.names).collect()
}

#[test]
fn rules_are_included_and_excluded_by_capability_kernel_and_architecture() {
    use Architecture::{Amd64, Arm64};
    assert_eq!(names(&[], (4, 7), Amd64), ["read", "write", "clone", "old", "amd"]);
    assert_eq!(names(&[], (4, 8), Arm64), ["read", "write", "clone", "ptrace", "old", "arm"]);
    assert_eq!(names(&["CAP_SYS_ADMIN"], (5, 0), Amd64), ["read", "write", "ptrace", "amd"]);
    assert_eq!(names(&["CAP_BPF", "CAP_SYS_ADMIN"], (10, 0), Amd64), ["read", "write", "ptrace", "mount", "amd"]);
}

#[test]
fn a_profile_keeps_its_values() {
    let profile = document::parse(PROFILE, Architecture::Amd64).expect("is a profile");
    let capabilities = all();
    let filter = profile.reduce(&host(&capabilities, KERNEL, Architecture::Amd64));
    assert_eq!((filter.default_action.as_str(), filter.default_errno), ("SCMP_ACT_ERRNO", Some(38)));
    assert_eq!(filter.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    assert_eq!(filter.flags, ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    let mount = filter.rules.iter().find(|rule| rule.names == ["mount"]).expect("is there");
    assert_eq!((mount.action.as_str(), mount.errno), ("SCMP_ACT_TRACE", Some(7)));
    let profile = document::parse(PROFILE, Architecture::Arm64).expect("is a profile");
    assert_eq!(profile.architectures, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
}

#[test]
fn the_oci_form_is_taken_as_it_is() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_S390X"],
        "flags": [],
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{"index": 5, "value": 18446744073709551615, "op": "SCMP_CMP_GE"}]}]
    }"#;
    let filter = from_json(text, &[], KERNEL).expect("is a profile");
    assert_eq!(filter.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_S390X"]);
    assert!(filter.flags.is_empty());
    assert_eq!(filter.rules[0].args[0].value, u64::MAX);
    seccomp::compile(&filter).expect("compiles");
}

/// Replaces `from` in a good profile; the error must contain `expected`.
fn refused(from: &str, to: &str, expected: &str) {
    let text = PROFILE.replacen(from, to, 1);
    assert_ne!(text, PROFILE, "{from} is not in the profile");
    let error = from_json(&text, &[], KERNEL).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error:?} should contain {expected:?}");
}

/// What is replaced in a good profile, by what, and what the error must say.
type Spoilt = (&'static str, &'static str, &'static str);

const SPOILT_DOCUMENT: &[Spoilt] = &[
    ("\"defaultAction\": \"SCMP_ACT_ERRNO\",", "", "defaultAction is missing"),
    ("SCMP_ACT_ERRNO", "SCMP_ACT_DENY", "defaultAction: \"SCMP_ACT_DENY\" is not an action"),
    ("\"defaultErrnoRet\": 38", "\"defaultErrnoRet\": 4095", "defaultErrnoRet: \"4095\" is not an errno"),
    ("\"defaultErrnoRet\": 38", "\"defaultErrnoRet\": -1", "-1"),
    ("defaultErrnoRet", "defaultErrno", "unknown field `defaultErrno`"),
    ("SCMP_ARCH_X86_64", "SCMP_ARCH_VAX", "archMap[1].architecture: \"SCMP_ARCH_VAX\" is not an architecture"),
    ("SCMP_ARCH_X32", "X32", "archMap[1].subArchitectures[1]: \"X32\""),
    ("\"archMap\"", "\"architectures\": [\"SCMP_ARCH_X86\"], \"archMap\"", "architectures and archMap are both given"),
    ("\"archMap\"", "\"listenerPath\": \"/run/agent\", \"archMap\"", "listenerPath is not supported"),
    ("\"archMap\"", "\"listenerMetadata\": \"x\", \"archMap\"", "listenerMetadata is not supported"),
    ("\"archMap\"", "\"flags\": [\"LOG\"], \"archMap\"", "flags[0]: \"LOG\" is not a flag"),
];

const SPOILT_RULES: &[Spoilt] = &[
    ("SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY", "syscalls[3].action is not supported"),
    ("\"errnoRet\": 7", "\"errnoRet\": 65536", "syscalls[3].errnoRet: \"65536\""),
    ("\"errnoRet\": 7", "\"errno\": 7", "unknown field `errno`"),
    ("\"name\": \"clone\"", "\"name\": \"clone\", \"names\": [\"fork\"]", "syscalls[1].name and syscalls[1].names"),
    ("\"name\": \"clone\",", "", "syscalls[1].names is missing"),
    ("\"read\", ", "\"\", ", "syscalls[0].names[0]: \"\" is not the name"),
    ("\"index\": 0", "\"index\": 6", "syscalls[1].args[0].index: \"6\""),
    ("SCMP_CMP_MASKED_EQ", "EQ", "syscalls[1].args[0].op: \"EQ\" is not an operator"),
    ("\"op\"", "\"operator\"", "unknown field `operator`"),
    ("\"value\": 2114060288", "\"value\": \"x\"", "invalid type"),
    ("\"4.8\"", "\"4\"", "syscalls[2].includes.minKernel: \"4\" is not a kernel version"),
    ("\"4.8\"", "\"4.8.1\"", "minKernel: \"4.8.1\""),
    ("\"4.8\"", "\"0.0\"", "minKernel: \"0.0\""),
    ("\"4.8\"", "\"4.256\"", "minKernel: \"4.256\""),
    ("CAP_BPF", "BPF", "syscalls[3].includes.caps[1]: \"BPF\" is not a capability"),
    ("s390x", "z16", "syscalls[1].excludes.arches[1]: \"z16\" is not an architecture"),
    ("minKernel", "minkernel", "unknown field `minkernel`"),
    ("}", "", "line"),
];

#[test]
fn what_is_not_known_is_refused_by_its_field() {
    for (from, to, expected) in SPOILT_DOCUMENT.iter().chain(SPOILT_RULES) {
        refused(from, to, expected);
    }
    assert!(from_json("{}", &[], KERNEL).is_err());
    assert!(from_json("", &[], KERNEL).is_err());
    assert!(from_json("[]", &[], KERNEL).is_err());
}
