//! Every flag of `sbx run` has an effect that can be seen, or is refused by name. Nothing is dropped in silence.
//!
//! The table below is the contract; `every_flag_of_the_help_is_in_the_table` keeps it complete.

mod support;

use std::collections::BTreeSet;
use std::fs;

use support::machine::Mode;
use support::{BUSYBOX, Machine, each_mode};

/// How the effect of a flag shows.
enum Effect {
    /// `run --rm FLAGS busybox sh -c SCRIPT` prints exactly one of the texts (separated by `|`).
    Prints(&'static [&'static str], &'static str, &'static str),
    /// The same, or an error that names the flag: the kernel may not have it.
    PrintsOrRefused(&'static [&'static str], &'static str, &'static str),
    /// `create FLAGS busybox` and then `inspect --format TEMPLATE` prints exactly the text.
    Inspect(&'static [&'static str], &'static str, &'static str),
    /// Shown by a test of its own, here or in the suite named.
    Test(&'static str),
}
use Effect::{Inspect, Prints, PrintsOrRefused, Test};

/// Prints the first of two cgroup files (version 1, version 2) that there is.
const CG: &str = "cg() { cat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2; }; ";

/// Every flag and its effect. Scripts that begin with `cg ` get [`CG`] in front.
const FLAGS: &[(&str, Effect)] = &[
    ("add-host", Prints(&["--add-host", "db:10.1.2.3"], "grep -c '^10.1.2.3[[:space:]]*db$' /etc/hosts", "1")),
    ("attach", Prints(&["-a", "stdout"], "echo out; echo err >&2", "out")),
    (
        "blkio-weight",
        PrintsOrRefused(
            &["--blkio-weight", "300"],
            "cg blkio/blkio.bfq.weight io.bfq.weight | tail -1",
            "300|default 300",
        ),
    ),
    ("cap-add", Prints(&["--cap-add", "NET_ADMIN"], "grep CapEff /proc/self/status", "CapEff:\t00000000a80435fb")),
    (
        "cap-drop",
        Prints(
            &["--cap-drop", "ALL"],
            "grep -E 'Cap(Eff|Bnd|Prm|Inh|Amb)' /proc/self/status | sort -u -k2 | awk '{print $2}'",
            "0000000000000000",
        ),
    ),
    ("cgroupns", Prints(&["--cgroupns", "private"], "cut -d: -f3 /proc/self/cgroup | sort -u", "/")),
    ("cidfile", Test("cidfile_holds_the_id_and_is_never_overwritten")),
    (
        "cpu-period",
        Prints(
            &["--cpu-period", "50000", "--cpu-quota", "25000"],
            "cg cpu/cpu.cfs_period_us cpu.max",
            "50000|25000 50000",
        ),
    ),
    ("cpu-quota", Prints(&["--cpu-quota", "25000"], "cg cpu/cpu.cfs_quota_us cpu.max", "25000|25000 100000")),
    ("cpu-shares", Prints(&["-c", "512"], "cg cpu/cpu.shares cpu.weight", "512|20|59")),
    ("cpus", Prints(&["--cpus", "0.5"], "cg cpu/cpu.cfs_quota_us cpu.max", "50000|50000 100000")),
    (
        "cpuset-cpus",
        Prints(&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status", "Cpus_allowed_list:\t0"),
    ),
    (
        "cpuset-mems",
        Prints(&["--cpuset-mems", "0"], "grep Mems_allowed_list /proc/self/status", "Mems_allowed_list:\t0"),
    ),
    ("detach", Test("run_basics::d_prints_the_whole_id_and_returns_while_the_container_runs")),
    ("detach-keys", Test("run_basics::detach_keys_leave_the_container_running_and_attach_comes_back")),
    (
        "device",
        Prints(
            &["--device", "/dev/loop-control:/dev/mine:r"],
            "stat -c %t:%T /dev/mine; (: >/dev/mine) 2>/dev/null || echo read-only",
            "a:ed\nread-only",
        ),
    ),
    (
        "device-cgroup-rule",
        Prints(
            &["--device-cgroup-rule", "c 10:237 rw"],
            "mknod /tmp/d c 10 237 && (: <>/tmp/d) && echo opened",
            "opened",
        ),
    ),
    ("device-read-bps", Test("block_rates_stand_in_the_cgroup")),
    ("device-read-iops", Test("block_rates_stand_in_the_cgroup")),
    ("device-write-bps", Test("block_rates_stand_in_the_cgroup")),
    ("device-write-iops", Test("block_rates_stand_in_the_cgroup")),
    (
        "dns",
        Prints(
            &["--dns", "9.9.9.9", "--dns", "8.8.4.4"],
            "grep ^nameserver /etc/resolv.conf",
            "nameserver 9.9.9.9\nnameserver 8.8.4.4",
        ),
    ),
    ("dns-opt", Prints(&["--dns-opt", "ndots:3"], "grep ^options /etc/resolv.conf", "options ndots:3")),
    ("net", Prints(&["--net", "none"], "ls /sys/class/net", "lo")),
    ("dns-option", Prints(&["--dns-option", "ndots:3"], "grep ^options /etc/resolv.conf", "options ndots:3")),
    ("dns-search", Prints(&["--dns-search", "example.test"], "grep ^search /etc/resolv.conf", "search example.test")),
    ("domainname", Prints(&["--domainname", "example.test"], "cat /proc/sys/kernel/domainname", "example.test")),
    ("entrypoint", Test("run_basics::the_default_command_and_entrypoint_come_from_the_image")),
    (
        "env",
        Prints(
            &["-e", "A=1", "--env", "B=two words", "-e", "HOME=/elsewhere"],
            "echo $A $B $HOME",
            "1 two words /elsewhere",
        ),
    ),
    ("env-file", Test("env_comes_from_flags_files_and_the_caller")),
    ("expose", Inspect(&["--expose", "81/udp"], "{{json .Config.ExposedPorts}}", "{\"81/udp\":{}}")),
    ("group-add", Prints(&["--group-add", "audio", "--group-add", "777"], "id -G", "0 29 777")),
    ("health-cmd", Test("lifecycle_health::health_goes_from_starting_to_healthy_to_unhealthy")),
    ("health-interval", Test("lifecycle_health::health_goes_from_starting_to_healthy_to_unhealthy")),
    ("health-retries", Test("lifecycle_health::health_goes_from_starting_to_healthy_to_unhealthy")),
    (
        "health-start-interval",
        Inspect(
            &["--health-cmd", "true", "--health-start-interval", "2s"],
            "{{json .Config.Healthcheck.StartInterval}}",
            "2000000000",
        ),
    ),
    ("health-start-period", Test("lifecycle_health::failures_in_the_start_period_do_not_count")),
    ("health-timeout", Test("lifecycle_health::a_probe_that_takes_too_long_is_a_failure")),
    ("hostname", Prints(&["--hostname", "box"], "hostname; grep -q box /etc/hosts && echo named", "box\nnamed")),
    ("init", Prints(&["--init"], "[ $$ -ne 1 ] && echo child", "child")),
    ("interactive", Test("run_basics::stdin_reaches_the_program_only_with_i")),
    ("ip", Test("network::a_fixed_address_and_mac_are_what_eth0_has")),
    ("ip6", Test("network::a_fixed_address_and_mac_are_what_eth0_has")),
    ("ipc", Test("namespaces_are_shared_with_another_container")),
    ("isolation", Test("run_basics::vm_isolation_says_that_it_is_not_built_yet")),
    ("kernel-memory", Test("what_no_kernel_has_any_more_is_refused")),
    ("label", Inspect(&["-l", "a=1", "--label", "b"], "{{json .Config.Labels}}", "{\"a\":\"1\",\"b\":\"\"}")),
    ("label-file", Test("labels_come_from_files_too")),
    ("link", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("link-local-ip", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("log-driver", Test("lifecycle_logs::log_driver_none_keeps_nothing_and_says_so")),
    ("log-opt", Test("lifecycle_logs::logs_rotate_at_the_size_asked_for")),
    (
        "mac-address",
        Prints(&["--mac-address", "02:42:11:22:33:44"], "cat /sys/class/net/eth0/address", "02:42:11:22:33:44"),
    ),
    ("memory", Prints(&["-m", "64m"], "cg memory/memory.limit_in_bytes memory.max", "67108864")),
    (
        "memory-reservation",
        Prints(&["--memory-reservation", "32m"], "cg memory/memory.soft_limit_in_bytes memory.low", "33554432"),
    ),
    (
        "memory-swap",
        PrintsOrRefused(
            &["-m", "64m", "--memory-swap", "96m"],
            "cg memory/memory.memsw.limit_in_bytes memory.swap.max",
            "100663296|33554432",
        ),
    ),
    (
        "memory-swappiness",
        PrintsOrRefused(&["--memory-swappiness", "7"], "cat /sys/fs/cgroup/memory/memory.swappiness", "7"),
    ),
    ("mount", Test("volumes::mount_takes_what_v_takes_and_more")),
    ("name", Inspect(&["--name", "my.name-1_x"], "{{.Name}}", "/my.name-1_x")),
    ("network", Prints(&["--network", "none"], "ls /sys/class/net", "lo")),
    ("network-alias", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("no-healthcheck", Test("lifecycle_health::no_healthcheck_switches_that_of_the_image_off")),
    (
        "oom-kill-disable",
        PrintsOrRefused(
            &["-m", "64m", "--oom-kill-disable"],
            "grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control",
            "oom_kill_disable 1",
        ),
    ),
    ("oom-score-adj", Prints(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500")),
    ("pid", Test("namespaces_are_shared_with_another_container")),
    ("pids-limit", Prints(&["--pids-limit", "50"], "cg pids/pids.max pids.max", "50")),
    ("platform", Test("a_platform_that_the_image_does_not_have_is_refused")),
    ("privileged", Test("run_security::privileged_gives_everything_that_the_caller_has")),
    ("publish", Test("network::published_ports_answer_on_loopback_and_the_address_of_the_machine")),
    ("publish-all", Test("network::publish_all_gives_every_exposed_port_a_free_one")),
    ("pull", Test("images::pull_policies_decide_when_the_registry_is_asked")),
    ("quiet", Test("images::quiet_prints_only_what_was_asked_for")),
    (
        "read-only",
        Prints(&["--read-only"], "touch /x 2>/dev/null || echo root; touch /dev/shm/x && echo shm", "root\nshm"),
    ),
    ("restart", Test("lifecycle_restart::on_failure_starts_again_as_often_as_allowed")),
    ("rm", Test("run_basics::rm_removes_the_container_and_its_anonymous_volumes_when_it_ends")),
    ("runtime", Test("what_sbx_does_not_do_is_refused_by_name")),
    (
        "security-opt",
        Prints(
            &["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"],
            "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
            "NoNewPrivs:\t1\nSeccomp:\t0",
        ),
    ),
    ("shm-size", Prints(&["--shm-size", "32m"], "df -k /dev/shm | awk 'END { print $2 }'", "32768")),
    ("sig-proxy", Test("run_basics::without_sig_proxy_a_signal_ends_only_the_command")),
    ("stop-signal", Test("lifecycle::stop_sends_the_stop_signal_and_kills_after_the_timeout")),
    ("stop-timeout", Test("lifecycle::stop_sends_the_stop_signal_and_kills_after_the_timeout")),
    ("storage-opt", Test("what_sbx_does_not_do_is_refused_by_name")),
    (
        "sysctl",
        Prints(
            &["--sysctl", "net.core.somaxconn=1234", "--sysctl", "kernel.shmmni=99"],
            "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni",
            "1234\n99",
        ),
    ),
    (
        "tmpfs",
        Prints(
            &["--tmpfs", "/scratch:size=1m,mode=700"],
            "awk '$2 == \"/scratch\" { print $3 }' /proc/mounts; stat -c %a /scratch; df -k /scratch | awk 'END { print $2 }'",
            "tmpfs\n700\n1024",
        ),
    ),
    ("tty", Test("run_basics::t_without_a_terminal_outside_is_refused_with_i")),
    (
        "ulimit",
        Prints(
            &["--ulimit", "nofile=100:200", "--ulimit", "core=0"],
            "ulimit -Sn; ulimit -Hn; ulimit -c",
            "100\n200\n0",
        ),
    ),
    ("user", Prints(&["-u", "alice"], "id -u; id -g; id -G; echo $HOME", "1000\n1000\n1000 50\n/home/alice")),
    ("userns", Prints(&["--userns", "host"], "awk '{ print $1, $2, $3 }' /proc/self/uid_map", "0 0 4294967295")),
    ("uts", Test("namespaces_are_shared_with_the_host")),
    ("volume", Test("volumes::a_folder_of_the_host_is_the_same_folder_inside")),
    ("volume-driver", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("volumes-from", Test("volumes::volumes_from_brings_the_volumes_of_another_container")),
    ("workdir", Prints(&["-w", "/made/for/it"], "pwd; stat -c %a /made", "/made/for/it\n755")),
    ("annotation", Inspect(&["--annotation", "a.b=c"], "{{json .HostConfig.Annotations}}", "{\"a.b\":\"c\"}")),
    ("blkio-weight-device", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("cgroup-parent", Test("cgroup_parent_is_where_the_cgroup_is")),
    ("cpu-rt-period", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("cpu-rt-runtime", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("cpu-count", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("cpu-percent", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("io-maxbandwidth", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("io-maxiops", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("disable-content-trust", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("gpus", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("use-api-socket", Test("what_sbx_does_not_do_is_refused_by_name")),
    ("help", Test("every_flag_of_the_help_is_in_the_table")),
];

#[test]
fn every_flag_shows_its_effect() {
    each_mode(|m| {
        let faults: Vec<String> = FLAGS.iter().filter_map(|(flag, effect)| fault_of(m, flag, effect)).collect();
        assert!(faults.is_empty(), "{} flags:\n{}", faults.len(), faults.join("\n"));
    });
}

fn fault_of(m: &Machine, flag: &str, effect: &Effect) -> Option<String> {
    let (output, expected) = match effect {
        Prints(args, script, expected) | PrintsOrRefused(args, script, expected) => {
            let script = if script.starts_with("cg ") { format!("{CG}{script}") } else { (*script).to_owned() };
            let output = m.sbx(&[&["run", "--rm"], *args, &[BUSYBOX, "sh", "-c", &script]].concat());
            let refused = output.status == 125 && output.stderr.contains(flag);
            // Docker drops what its kernel has not, with a warning; sbx must not.
            let dropped = !m.peer().is_sbx() && output.stderr.contains("discarded");
            if matches!(effect, PrintsOrRefused(..)) && (refused || dropped) {
                return None;
            }
            (output, *expected)
        }
        Inspect(args, template, expected) => {
            let name = m.name("shown");
            let named = if args.contains(&"--name") { [].as_slice() } else { &["--name", &name] };
            let created = m.sbx(&[&["create"], named, *args, &[BUSYBOX]].concat());
            let too_old = !m.peer().is_sbx() && created.stderr.contains("requires API version");
            if created.status != 0 && !too_old {
                return Some(format!("--{flag}: {created}"));
            }
            let shown = if too_old { created } else { m.sbx(&["inspect", "--format", template, created.text()]) };
            (shown, *expected)
        }
        Test(_) => return None,
    };
    if !m.peer().is_sbx() && output.stderr.contains("requires API version") {
        return None; // Debian's Docker is older than the flag.
    }
    let shown = output.text();
    let good = output.status == 0 && expected.split('|').any(|one| one == shown);
    (!good).then(|| format!("--{flag}: expected {expected:?}\n{output}"))
}

#[test]
fn every_flag_of_the_help_is_in_the_table() {
    support::machine(|m| {
        let help = m.sbx(&["run", "--help"]).expect_ok().stdout;
        let words = help.split(|c: char| c.is_whitespace() || ",=[<".contains(c));
        let shown: BTreeSet<&str> =
            words.filter_map(|word| word.strip_prefix("--")).filter(|w| !w.is_empty()).collect();
        let known: BTreeSet<&str> = FLAGS.iter().map(|(flag, _)| *flag).collect();
        let unknown: Vec<&&str> =
            shown.difference(&known).filter(|flag| m.peer().is_sbx() || **flag != "net").collect();
        assert!(unknown.is_empty(), "flags that no test knows: {unknown:?}");
        for flag in ISSUED {
            assert!(shown.contains(flag), "--{flag} is not in the help of `run`");
        }
    });
}

/// What every release must have.
const ISSUED: [&str; 75] = [
    "interactive",
    "tty",
    "detach",
    "rm",
    "name",
    "hostname",
    "env",
    "env-file",
    "workdir",
    "user",
    "volume",
    "mount",
    "tmpfs",
    "volumes-from",
    "publish",
    "publish-all",
    "network",
    "ip",
    "mac-address",
    "dns",
    "add-host",
    "memory",
    "memory-swap",
    "memory-reservation",
    "cpus",
    "cpu-shares",
    "cpuset-cpus",
    "pids-limit",
    "blkio-weight",
    "device-read-bps",
    "device-write-bps",
    "device-read-iops",
    "device-write-iops",
    "ulimit",
    "shm-size",
    "cap-add",
    "cap-drop",
    "security-opt",
    "privileged",
    "device",
    "device-cgroup-rule",
    "read-only",
    "init",
    "entrypoint",
    "label",
    "cidfile",
    "restart",
    "stop-signal",
    "stop-timeout",
    "health-cmd",
    "health-interval",
    "health-timeout",
    "health-retries",
    "health-start-period",
    "oom-kill-disable",
    "oom-score-adj",
    "sysctl",
    "ipc",
    "pid",
    "uts",
    "userns",
    "cgroupns",
    "group-add",
    "log-driver",
    "log-opt",
    "pull",
    "platform",
    "sig-proxy",
    "detach-keys",
    "attach",
    "dns-search",
    "dns-option",
    "expose",
    "no-healthcheck",
    "domainname",
];

#[test]
fn tests_that_the_table_names_exist() {
    for (flag, effect) in FLAGS {
        let Test(path) = effect else { continue };
        let (file, name) = path.split_once("::").unwrap_or(("run_flags", path));
        let file = format!("{}/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("--{flag}: {file}: {error}"));
        assert!(text.contains(&format!("fn {name}()")), "--{flag}: {file} has no test {name}");
    }
}

#[test]
fn cidfile_holds_the_id_and_is_never_overwritten() {
    each_mode(|m| {
        let file = m.at("cid");
        let id = m.ok(&["create", "--cidfile", &file, BUSYBOX]);
        assert_eq!(fs::read_to_string(&file).expect("the file is there"), id);
        m.fails(&["run", "--rm", "--cidfile", &file, BUSYBOX, "true"], 125, &file);
        assert_eq!(fs::read_to_string(&file).expect("the file is there"), id);
    });
}

#[test]
fn env_comes_from_flags_files_and_the_caller() {
    each_mode(|m| {
        let file = m.at("vars");
        fs::write(&file, "# a comment\nFROM_FILE=a b=c\nCALLER\nABSENT\n\nLATER=file\n").expect("a new file");
        let mut command = m.command("env");
        command.args(["CALLER=called", "OTHER=other"]);
        let program = m.peer().program();
        command.arg(program);
        m.peer().add_arguments(
            m,
            &mut command,
            &["run", "--rm", "--env-file", &file, "-e", "OTHER", "-e", "LATER=flag", BUSYBOX, "env"],
        );
        let output = support::output::Running::start(command, Some(b"")).finish(support::DEADLINE).expect_ok();
        let lines: BTreeSet<&str> = output.stdout.lines().collect();
        for expected in ["FROM_FILE=a b=c", "CALLER=called", "OTHER=other", "LATER=flag", "HOME=/root"] {
            assert!(lines.contains(expected), "no {expected}\n{output}");
        }
        assert!(!output.stdout.contains("ABSENT"), "{output}");
        assert!(lines.iter().any(|line| line.starts_with("HOSTNAME=")), "{output}");
    });
}

#[test]
fn labels_come_from_files_too() {
    each_mode(|m| {
        let file = m.at("labels");
        fs::write(&file, "one=1\ntwo=2\n").expect("a new file");
        let id = m.ok(&["create", "--label-file", &file, "--label", "one=flag", BUSYBOX]);
        assert_eq!(m.inspect(&id, "{{json .Config.Labels}}"), r#"{"one":"flag","two":"2"}"#);
    });
}

/// A loop device over a file of the machine; it goes with this value.
struct LoopDevice<'a>(&'a Machine, String);

impl<'a> LoopDevice<'a> {
    fn new(machine: &'a Machine) -> Self {
        let file = machine.at("disk");
        let made = machine.sh(&format!("truncate -s 16M {file}; losetup --find --show {file}")).expect_ok();
        Self(machine, made.text().to_owned())
    }
}

impl Drop for LoopDevice<'_> {
    fn drop(&mut self) {
        drop(self.0.sh(&format!("losetup --detach {}", self.1)));
    }
}

#[test]
fn block_rates_stand_in_the_cgroup() {
    each_mode(|m| {
        let disk = LoopDevice::new(m);
        let numbers = m.sh(&format!("printf %d:%d 0x$(stat -c %t {0}) 0x$(stat -c %T {0})", disk.1)).expect_ok();
        let numbers = numbers.text();
        let mut args = vec!["run".to_owned(), "--rm".to_owned()];
        for (flag, rate) in [("read-bps", "1mb"), ("write-bps", "2mb"), ("read-iops", "300"), ("write-iops", "400")] {
            args.extend([format!("--device-{flag}"), format!("{}:{rate}", disk.1)]);
        }
        let script = "cd /sys/fs/cgroup; if [ -e io.max ]; then grep -h 7: io.max; else cd blkio; \
                      for f in read_bps write_bps read_iops write_iops; do cat blkio.throttle.${f}_device; done; fi";
        let shown = if m.mode() == Mode::Vm {
            // The disk is the host's, and so is the limit: on the machine's process.
            args[1] = "-d".to_owned();
            args.extend([BUSYBOX, "sleep", "1000"].map(str::to_owned));
            let id = m.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(m.inspect(&id, "{{.Enforcement.BlkioDeviceReadBps}}"), "host cgroup");
            let path = format!("$(sed -n s/^0:://p /proc/{}/cgroup)", m.inspect(&id, "{{.State.Pid}}"));
            m.sh(&format!("cd /sys/fs/cgroup{path}; grep -h 7: io.max")).expect_ok().text().to_owned()
        } else {
            args.extend([BUSYBOX, "sh", "-c", script].map(str::to_owned));
            m.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let v1 = format!("{numbers} 1048576\n{numbers} 2097152\n{numbers} 300\n{numbers} 400");
        let v2 = format!("{numbers} rbps=1048576 wbps=2097152 riops=300 wiops=400");
        assert!(shown == v1 || shown == v2, "{shown}");
    });
}

#[test]
fn namespaces_are_shared_with_the_host() {
    each_mode(|m| {
        let outside = |kind: &str| m.sh(&format!("readlink /proc/self/ns/{kind}")).expect_ok().text().to_owned();
        for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")] {
            let script = format!("readlink /proc/self/ns/{kind}");
            assert_eq!(m.in_busybox(&[flag, "host"], &script), outside(kind), "{flag} host");
            assert_ne!(m.in_busybox(&[], &script), outside(kind), "a container has its own {kind} namespace");
        }
    });
}

#[test]
fn namespaces_are_shared_with_another_container() {
    each_mode(|m| {
        let first = m.detached(&["--name", "first", "--ipc", "shareable"], &["sleep", "1000"]);
        let own = |kind: &str| m.ok(&["exec", &first, "readlink", &format!("/proc/1/ns/{kind}")]);
        for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
            let shared = m.in_busybox(&[flag, "container:first"], &format!("readlink /proc/self/ns/{kind}"));
            assert_eq!(shared, own(kind), "{flag} container:first");
        }
        m.fails(&["run", "--rm", "--pid", "container:nobody", BUSYBOX, "true"], 125, "nobody");
        let private = m.detached(&["--ipc", "private"], &["sleep", "1000"]);
        m.fails(&["run", "--rm", "--ipc", &format!("container:{private}"), BUSYBOX, "true"], 125, "shareable");
        assert_eq!(m.in_busybox(&["--ipc", "none"], "grep -c ' /dev/shm ' /proc/mounts || true"), "0");
    });
}

#[test]
fn a_platform_that_the_image_does_not_have_is_refused() {
    each_mode(|m| {
        let own = format!("linux/{}", support::image::architecture());
        m.ok(&["run", "--rm", "--platform", &own, BUSYBOX, "true"]);
        if m.peer().is_sbx() {
            m.fails(&["run", "--rm", "--pull", "never", "--platform", "linux/s390x", BUSYBOX, "true"], 125, "s390x");
            m.fails(&["run", "--rm", "--platform", "plan9", BUSYBOX, "true"], 125, "plan9");
        }
    });
}

#[test]
fn cgroup_parent_is_where_the_cgroup_is() {
    each_mode(|m| {
        let id = m.detached(&["--cgroup-parent", "/under/here"], &["sleep", "1000"]);
        let pid = m.inspect(&id, "{{.State.Pid}}");
        let paths = m.sh(&format!("cut -d: -f3 /proc/{pid}/cgroup")).expect_ok().stdout;
        assert!(paths.lines().any(|path| path.starts_with("/under/here/") && path.contains(&id)), "{paths}");
        m.ok(&["rm", "-f", &id]);
        m.sh("find /sys/fs/cgroup -depth -path '*/under*' -type d -exec rmdir {} + || true").expect_ok();
    });
}

/// Flags that Docker has and sbx has not, on any system: an error that names them, before anything is made.
#[test]
fn what_sbx_does_not_do_is_refused_by_name() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip("what_sbx_does_not_do_is_refused_by_name", "it is about sbx alone");
        }
        let refused: [&[&str]; 12] = [
            &["--gpus", "all"],
            &["--runtime", "other"],
            &["--storage-opt", "size=1g"],
            &["--volume-driver", "nfs"],
            &["--link", "other"],
            &["--cpu-rt-runtime", "1000"],
            &["--kernel-memory", "64m"],
            &["--cpu-count", "1"],
            &["--cpu-percent", "50"],
            &["--io-maxiops", "100"],
            &["--log-driver", "syslog"],
            &["--userns", "nonsense"],
        ];
        // A disk of the container's own has a size, an upper directory has none.
        for flags in refused.iter().filter(|flags| m.mode() == Mode::Process || flags[0] != "--storage-opt") {
            let output = m.sbx(&[&["run", "--rm"], *flags, &[BUSYBOX, "true"]].concat()).expect_status(125);
            let word = flags[0].trim_start_matches('-');
            let said = output.stderr.to_lowercase();
            let named = said.contains(word) || said.contains(&word.replace('-', " "));
            assert!(named, "the flag is not named\n{output}");
        }
    });
}

#[test]
fn what_no_kernel_has_any_more_is_refused() {
    each_mode(|m| {
        if m.peer().is_sbx() {
            m.fails(&["run", "--rm", "--kernel-memory", "64m", BUSYBOX, "true"], 125, "kernel-memory");
        }
    });
}
