//! The network of a container: bridge, published ports, shared and absent networks, name files.

mod support;

use support::{BUSYBOX, Image, Machine, each_mode, eventually};

/// A server inside that answers each connection to port 80 with a word.
fn server(m: &Machine, flags: &[&str], word: &str) -> String {
    let script = format!("mkdir /www; echo {word} >/www/index.html; exec httpd -f -p 80 -h /www");
    let id = m.detached(flags, &["sh", "-c", &script]);
    eventually("the server listens", || {
        (m.sbx(&["exec", &id, "sh", "-c", "netstat -ltn | grep -q ':80 '"]).status == 0).then_some(())
    });
    id
}

/// What a server answers to a client outside of any container.
fn fetched(m: &Machine, url: &str) -> String {
    eventually(&format!("an answer from {url}"), || {
        let output = m.sh(&format!("curl -sS -g --max-time 5 '{url}'"));
        (output.status == 0).then(|| output.text().to_owned())
    })
}

/// Fetches from inside a container. (busybox's wget cannot look names up in a static binary, and crashes.)
fn get(address: &str) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80 | tail -1")
}

fn refused(m: &Machine, url: &str) -> bool {
    m.sh(&format!("curl -sS -g --max-time 2 '{url}'")).status != 0
}

#[test]
fn eth0_has_an_address_of_the_bridge_and_a_way_out() {
    each_mode(|m| {
        let script = "ip -o -4 addr show eth0 | awk '{ print $4 }'; ip route | awk '/default/ { print $3 }'; \
                      cat /sys/class/net/eth0/operstate; ip -o link | wc -l";
        let shown = m.in_busybox(&[], script);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains('/') && lines[2] == "up" && lines[3] == "2", "{shown}");
        let gateway = lines[1];
        assert!(m.sh("ip -o -4 addr").expect_ok().stdout.contains(&format!("{gateway}/")), "{gateway} is the bridge");
        m.in_busybox(&[], &format!("ping -c 1 -W 5 {gateway}"));
    });
}

#[test]
fn containers_reach_each_other_by_address() {
    each_mode(|m| {
        let id = server(m, &[], "hello");
        let address = m.inspect(&id, "{{.NetworkSettings.IPAddress}}");
        assert_eq!(m.in_busybox(&[], &get(&address)), "hello");
        // A process and a machine are neighbours on one bridge.
        assert_eq!(m.in_busybox(&["--isolation", "process"], &get(&address)), "hello");
    });
}

#[test]
fn a_container_in_the_network_of_another_reaches_it_on_loopback() {
    each_mode(|m| {
        let id = server(m, &[], "hello");
        assert_eq!(m.in_busybox(&["--network", &format!("container:{id}")], &get("127.0.0.1")), "hello");
    });
}

#[test]
fn published_ports_answer_on_loopback_and_the_address_of_the_machine() {
    each_mode(|m| {
        m.sh("ip link add outside type bridge; ip addr add 192.0.2.1/24 dev outside; ip link set outside up")
            .expect_ok();
        let id = server(m, &["-p", "8080:80"], "published");
        assert_eq!(fetched(m, "http://127.0.0.1:8080/"), "published");
        assert_eq!(fetched(m, "http://192.0.2.1:8080/"), "published");
        assert_eq!(fetched(m, "http://localhost:8080/"), "published");
        assert!(m.ok(&["ps"]).contains("0.0.0.0:8080->80/tcp"), "{}", m.ok(&["ps"]));
        assert_eq!(m.ok(&["port", &id, "80/tcp"]).lines().next(), Some("0.0.0.0:8080"));
        assert!(m.ok(&["port", &id]).contains("80/tcp -> 0.0.0.0:8080"));
        m.fails(&["port", &id, "81/tcp"], 1, "81");
        m.ok(&["stop", "-t", "0", &id]);
        assert!(refused(m, "http://127.0.0.1:8080/"), "a stopped container has no ports");
        m.ok(&["start", &id]);
        assert_eq!(fetched(m, "http://127.0.0.1:8080/"), "published");
        m.ok(&["rm", "-f", &id]);
        m.sh("ip link del outside").expect_ok();
    });
}

#[test]
fn published_ports_answer_on_ipv6_loopback() {
    each_mode(|m| {
        server(m, &["-p", "8080:80"], "six");
        assert_eq!(fetched(m, "http://[::1]:8080/"), "six");
    });
}

#[test]
fn a_port_on_one_address_answers_only_there() {
    each_mode(|m| {
        m.sh("ip link add outside type bridge; ip addr add 192.0.2.1/24 dev outside; ip link set outside up")
            .expect_ok();
        let id = server(m, &["-p", "127.0.0.1:8080:80"], "local");
        assert_eq!(fetched(m, "http://127.0.0.1:8080/"), "local");
        assert!(refused(m, "http://192.0.2.1:8080/"), "published on 127.0.0.1 alone");
        m.ok(&["rm", "-f", &id]);
        m.sh("ip link del outside").expect_ok();
    });
}

#[test]
fn udp_ports_carry_packets_both_ways() {
    each_mode(|m| {
        // busybox has nothing that answers over UDP; the machine's own socat has.
        let server = ["chroot", "/host", "socat", "UDP4-RECVFROM:53,fork", "SYSTEM:read a; echo got $a"];
        let id = m.detached(&["-p", "5300:53/udp", "-v", "/:/host:ro"], &server);
        eventually("the server listens", || {
            (m.sbx(&["exec", &id, "sh", "-c", "netstat -lun | grep -q ':53 '"]).status == 0).then_some(())
        });
        let answer = m.sh("echo ping | socat -t 5 - UDP4:127.0.0.1:5300").expect_ok();
        assert_eq!(answer.text(), "got ping");
    });
}

#[test]
fn ranges_and_random_ports_are_each_published() {
    each_mode(|m| {
        let id = m.detached(&["-p", "7000-7002:80-82", "-p", "83"], &["sleep", "1000"]);
        let ports = m.ok(&["port", &id]);
        for n in 0..3 {
            assert!(ports.contains(&format!("{}/tcp -> 0.0.0.0:{}", 80 + n, 7000 + n)), "{ports}");
        }
        let random = m.ok(&["port", &id, "83"]);
        let port: u16 = random
            .lines()
            .next()
            .and_then(|line| line.rsplit(':').next())
            .and_then(|p| p.parse().ok())
            .expect("a port");
        assert!(port >= 1024, "{random}");
        for (wrong, word) in [
            ("7000-7002:80-81", "port"),
            ("99999:80", "port"),
            ("80:0x50", "port"),
            ("80:", "port"),
            ("1.2.3:80:80", "1.2.3"),
            ("80:80/icmp", "icmp"),
            (":::::", ""),
        ] {
            m.fails(&["run", "--rm", "-p", wrong, BUSYBOX, "true"], 125, word);
        }
    });
}

#[test]
fn publish_all_gives_every_exposed_port_a_free_one() {
    each_mode(|m| {
        m.load(&Image::busybox_with(
            "test/exposed:1",
            &[("ExposedPorts", serde_json::json!({ "80/tcp": {}, "53/udp": {} }))],
        ));
        let id = m.ok(&["run", "-d", "-P", "--expose", "90", "test/exposed:1", "sleep", "1000"]);
        let ports = m.ok(&["port", &id]);
        for port in ["80/tcp", "53/udp", "90/tcp"] {
            assert!(ports.contains(&format!("{port} -> 0.0.0.0:")), "{ports}");
        }
    });
}

#[test]
fn a_port_that_is_taken_is_refused_and_nothing_stays() {
    each_mode(|m| {
        server(m, &["-p", "8080:80", "--name", "first"], "first");
        m.fails(&["run", "--rm", "--name", "second", "-p", "8080:80", BUSYBOX, "true"], 125, "8080");
        let mut listener = m.command("nc");
        listener.args(["-l", "127.0.0.1", "9090"]);
        let listener = support::output::Running::start(listener, None);
        eventually("somebody listens", || (m.sh("ss -Hltn | grep -q :9090").status == 0).then_some(()));
        m.fails(&["run", "--rm", "-p", "9090:80", BUSYBOX, "true"], 125, "9090");
        m.sh("echo | nc -N 127.0.0.1 9090 || true").expect_ok();
        listener.finish(support::DEADLINE);
        assert_eq!(fetched(m, "http://127.0.0.1:8080/"), "first", "the first one is untouched");
    });
}

#[test]
fn network_none_has_loopback_alone() {
    each_mode(|m| {
        let script = "ls /sys/class/net; ip -o addr show lo | head -1 | awk '{ print $4 }'";
        assert_eq!(m.in_busybox(&["--network", "none"], script), "lo\n127.0.0.1/8");
    });
}

#[test]
fn the_network_of_the_host_is_joined() {
    each_mode(|m| {
        let outside = m.sh("readlink /proc/self/ns/net").expect_ok();
        assert_eq!(m.in_busybox(&["--network", "host"], "readlink /proc/self/ns/net"), outside.text());
    });
}

#[test]
fn the_network_of_a_container_is_joined() {
    each_mode(|m| {
        let id = m.detached(&["--hostname", "shared"], &["sleep", "1000"]);
        let joined = ["--network", &format!("container:{id}")];
        assert_eq!(
            m.in_busybox(&joined, "hostname; cat /sys/class/net/eth0/address"),
            m.ok(&["exec", &id, "sh", "-c", "hostname; cat /sys/class/net/eth0/address"])
        );
        m.fails(&[&["run", "--rm"], &joined[..], &["-p", "80:80", BUSYBOX, "true"]].concat(), 125, "port");
        m.fails(&[&["run", "--rm"], &joined[..], &["--hostname", "x", BUSYBOX, "true"]].concat(), 125, "hostname");
        m.fails(&["run", "--rm", "--network", "container:nobody", BUSYBOX, "true"], 125, "nobody");
    });
}

#[test]
fn a_fixed_address_and_mac_are_what_eth0_has() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip(
                "a_fixed_address_and_mac_are_what_eth0_has",
                "Docker takes --ip only on other networks",
            );
        }
        let gateway = m.in_busybox(&[], "ip route | awk '/default/ { print $3 }'");
        let prefix = gateway.rsplit_once('.').expect("an address").0;
        let flags = ["--ip", &format!("{prefix}.77"), "--mac-address", "02:42:aa:bb:cc:dd"];
        let shown =
            m.in_busybox(&flags, "ip -o -4 addr show eth0 | awk '{ print $4 }'; cat /sys/class/net/eth0/address");
        assert!(shown.starts_with(&format!("{prefix}.77/")) && shown.ends_with("02:42:aa:bb:cc:dd"), "{shown}");
        let id = m.detached(&["--ip", &format!("{prefix}.78")], &["sleep", "1000"]);
        assert_eq!(m.inspect(&id, "{{.NetworkSettings.IPAddress}}"), format!("{prefix}.78"));
        m.fails(&["run", "--rm", "--ip", &format!("{prefix}.78"), BUSYBOX, "true"], 125, &format!("{prefix}.78"));
        m.fails(&["run", "--rm", "--ip", "203.0.113.5", BUSYBOX, "true"], 125, "203.0.113.5");
        m.fails(&["run", "--rm", "--ip", &gateway, BUSYBOX, "true"], 125, &gateway);
        m.fails(&["run", "--rm", "--ip", "1.2.3", BUSYBOX, "true"], 125, "1.2.3");
        m.fails(&["run", "--rm", "--ip6", "nonsense", BUSYBOX, "true"], 125, "nonsense");
        m.fails(&["run", "--rm", "--mac-address", "nonsense", BUSYBOX, "true"], 125, "nonsense");
    });
}

#[test]
fn addresses_are_different_while_in_use_and_free_again_after() {
    each_mode(|m| {
        let ids: Vec<String> = (0..5).map(|_| m.detached(&[], &["sleep", "1000"])).collect();
        let mut addresses: Vec<String> = ids.iter().map(|id| m.inspect(id, "{{.NetworkSettings.IPAddress}}")).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
        for id in &ids {
            m.ok(&["kill", id]);
            m.await_inspect(id, "{{.State.Running}}", "false");
            assert_eq!(m.inspect(id, "{{.NetworkSettings.IPAddress}}"), "", "one that ended has none");
        }
    });
}

#[test]
fn resolv_conf_and_hosts_are_made_for_the_container() {
    each_mode(|m| {
        let hosts = m.in_busybox(
            &["--hostname", "me", "--add-host", "db:10.0.0.9"],
            "cat /etc/hosts; ip -o -4 addr show eth0 | awk '{ split($4, a, \"/\"); print a[1] }'",
        );
        let own = hosts.lines().last().expect("an address");
        let names = |address: &str| {
            hosts
                .lines()
                .any(|line| line.split_whitespace().next() == Some(address) && line.split_whitespace().count() > 1)
        };
        assert!(names("127.0.0.1") && names("::1") && names("10.0.0.9") && names(own), "{hosts}");
        assert_eq!(m.in_busybox(&["--hostname", "me"], "cat /etc/hostname"), "me");
        let id = m.detached(&["--dns", "192.0.2.53"], &["sleep", "1000"]);
        m.ok(&[
            "exec",
            &id,
            "sh",
            "-c",
            "echo nameserver 192.0.2.54 >/etc/resolv.conf; echo 10.1.1.1 mine >>/etc/hosts",
        ]);
        assert!(
            m.ok(&["exec", &id, "cat", "/etc/resolv.conf", "/etc/hosts"]).contains("192.0.2.54"),
            "they can be written"
        );
        m.fails(&["run", "--rm", "--dns", "nonsense", BUSYBOX, "true"], 125, "nonsense");
        m.fails(&["run", "--rm", "--add-host", "nonsense", BUSYBOX, "true"], 125, "nonsense");
        m.fails(&["run", "--rm", "--add-host", "x:300.1.1.1", BUSYBOX, "true"], 125, "300.1.1.1");
    });
}

#[test]
fn the_way_out_is_masqueraded() {
    each_mode(|m| {
        // A neighbour in another network namespace that knows nothing of the bridge's addresses.
        let set_up = "ip netns add neighbour; ip link add wan type veth peer name wan0 netns neighbour; \
                      ip addr add 198.51.100.1/24 dev wan; ip link set wan up; \
                      ip -n neighbour addr add 198.51.100.2/24 dev wan0; ip -n neighbour link set wan0 up; ip -n neighbour link set lo up";
        m.sh(set_up).expect_ok();
        let mut listener = m.command("ip");
        listener.args([
            "netns",
            "exec",
            "neighbour",
            "socat",
            "-u",
            "TCP-LISTEN:7777,reuseaddr",
            "SYSTEM:echo $SOCAT_PEERADDR",
        ]);
        let listener = support::output::Running::start(listener, Some(b""));
        eventually("the neighbour listens", || {
            (m.sh("ip netns exec neighbour ss -Hltn | grep -q :7777").status == 0).then_some(())
        });
        m.in_busybox(&[], "echo x | nc -w 5 198.51.100.2 7777");
        assert_eq!(listener.finish(support::DEADLINE).text(), "198.51.100.1");
        m.sh("ip netns del neighbour; umount /run/netns; ip link del wan 2>/dev/null || true").expect_ok();
    });
}

#[test]
fn a_neighbour_does_not_reach_what_was_not_published() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip("a_neighbour_does_not_reach_what_was_not_published", "Docker does so since 28.0");
        }
        let id = server(m, &["-p", "127.0.0.1:8080:80"], "private");
        let address = m.inspect(&id, "{{.NetworkSettings.IPAddress}}");
        let set_up = "ip netns add neighbour; ip link add wan type veth peer name wan0 netns neighbour; \
                      ip addr add 198.51.100.1/24 dev wan; ip link set wan up; \
                      ip -n neighbour addr add 198.51.100.2/24 dev wan0; ip -n neighbour link set wan0 up; \
                      ip -n neighbour route add default via 198.51.100.1";
        m.sh(set_up).expect_ok();
        for url in [format!("http://{address}/"), "http://198.51.100.1:8080/".to_owned()] {
            let output = m.sh(&format!("ip netns exec neighbour curl -sS --max-time 2 {url}"));
            assert_ne!(output.status, 0, "a neighbour reached {url}\n{output}");
        }
        // With a route to loopback by way of this machine (CVE-2025-54388 and its like).
        m.sh("ip -n neighbour route add local 127.0.0.0/8 dev lo || true; ip -n neighbour route add 127.0.0.1 via 198.51.100.1 || true").expect_ok();
        m.sh("ip netns del neighbour; umount /run/netns; ip link del wan 2>/dev/null || true").expect_ok();
    });
}

#[test]
fn the_firewall_of_others_is_left_alone() {
    each_mode(|m| {
        let rules = "nft add table ip mine; nft add chain ip mine c '{ type filter hook forward priority 5; }'; nft add rule ip mine c counter accept";
        m.sh(rules).expect_ok();
        let before = m.sh("nft -s list table ip mine").expect_ok().stdout;
        server(m, &["-p", "8080:80"], "x");
        m.ok(&["rm", "-f", &m.ok(&["ps", "-q"])]);
        assert_eq!(m.sh("nft -s list table ip mine").expect_ok().stdout, before);
        m.sh("nft delete table ip mine").expect_ok();
    });
}
