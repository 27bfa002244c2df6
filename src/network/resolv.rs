//! `/etc/resolv.conf` of a container: the host's, without what only works in the host's namespace, and what the user
//! said instead. The rules are Docker's for networks without a resolver of their own (resolv.conf(5)).

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::{Error, Result};

/// systemd-resolved's stub; its file says nothing else.
const RESOLVED_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Where systemd-resolved writes the servers behind its stub.
const RESOLVED_FILE: &str = "run/systemd/resolve/resolv.conf";
/// Docker's fallback: public servers.
const DEFAULT_SERVERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];
const DEFAULT_SERVERS_6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844)),
];
/// Longest file that is read; the resolver itself ignores all but a few lines.
const LONGEST_FILE: u64 = 1 << 20;

/// What the user says instead of the host's settings; an empty list keeps the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsOptions {
    /// `--dns`.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`; one `.` removes the host's.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
}

impl DnsOptions {
    /// Reads and checks the values of the three flags. The texts of errors are Docker's.
    pub fn parse(servers: &[String], search: &[String], options: &[String]) -> Result<DnsOptions> {
        Ok(DnsOptions {
            servers: servers.iter().map(|text| parse_server(text)).collect::<Result<_>>()?,
            search: search.iter().map(|text| parse_domain(text)).collect::<Result<_>>()?,
            options: options.iter().map(|text| parse_option(text)).collect::<Result<_>>()?,
        })
    }
}

fn parse_server(text: &str) -> Result<IpAddr> {
    text.trim().parse().map_err(|_| Error::Invalid(format!("IP address is not correctly formatted: {text}")))
}

/// A search domain: `.`, or labels of letters, digits, `-` and `_` that begin and end with none of the signs.
fn parse_domain(text: &str) -> Result<String> {
    let domain = text.trim();
    let sign = |byte: u8| byte == b'-' || byte == b'_';
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || sign(byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    if domain == "." || (domain.len() <= 255 && bare.split('.').all(label)) {
        return Ok(domain.into());
    }
    Err(Error::Invalid(format!("{text} is not a valid domain")))
}

fn parse_option(text: &str) -> Result<String> {
    if text.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '#') {
        return Err(Error::Invalid(format!(
            "{text:?} is not a valid resolver option: one word is needed, as in resolv.conf(5)"
        )));
    }
    Ok(text.into())
}

/// Which network the file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvFor {
    /// A bridge network with IPv4 only.
    Bridge,
    /// A bridge network with both families.
    BridgeWithIpv6,
    /// The host's own network namespace, where every server of the host works.
    Host,
    /// No network; nothing can be reached, so no server is made up.
    None,
}

/// Reads the host's settings below `root` (`/`): `/etc/resolv.conf`, or what systemd-resolved hides behind its stub.
/// A host without the file has no settings.
pub fn host_resolv_conf(root: &Path) -> Result<String> {
    let text = read(&root.join("etc/resolv.conf"))?.unwrap_or_default();
    if servers(&text) == [RESOLVED_STUB]
        && let Some(behind) = read(&root.join(RESOLVED_FILE))?
    {
        return Ok(behind);
    }
    Ok(text)
}

fn read(path: &Path) -> Result<Option<String>> {
    let mut text = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn servers(host: &str) -> Vec<IpAddr> {
    values(host, "nameserver").iter().filter_map(|text| parse_scoped(text)).collect()
}

/// An address, possibly with a zone (`fe80::1%eth0`), which is meaningless in another namespace.
fn parse_scoped(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

/// The first word after every occurrence of a keyword.
fn values<'a>(host: &'a str, keyword: &str) -> Vec<&'a str> {
    lines(host).filter_map(|(word, rest)| (word == keyword).then(|| rest.split_whitespace().next()).flatten()).collect()
}

fn lines(host: &str) -> impl Iterator<Item = (&str, &str)> {
    host.lines()
        .map(|line| line.split(['#', ';']).next().unwrap_or_default().trim())
        .filter_map(|line| line.split_once(char::is_whitespace))
}

/// All words after the last occurrence of a keyword, which is the one that counts.
fn last_words(host: &str, keywords: &[&str]) -> Vec<String> {
    lines(host)
        .filter(|(word, _)| keywords.contains(word))
        .last()
        .map(|(_, rest)| rest.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The text of the container's `/etc/resolv.conf`, made from the host's settings and the user's.
pub fn resolv_conf(host: &str, user: &DnsOptions, network: ResolvFor) -> String {
    if network == ResolvFor::Host && *user == DnsOptions::default() {
        return host.to_owned();
    }
    let mut text = String::new();
    for server in chosen_servers(host, user, network) {
        let _ = writeln!(text, "nameserver {server}"); // writing to a String cannot fail
    }
    let search = if user.search.is_empty() { last_words(host, &["search", "domain"]) } else { user.search.clone() };
    let search: Vec<String> = search.into_iter().filter(|domain| domain != ".").collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    // Options of several lines add up.
    let inherited = || lines(host).filter(|(word, _)| *word == "options").flat_map(|(_, rest)| rest.split_whitespace());
    let options: Vec<String> =
        if user.options.is_empty() { inherited().map(str::to_owned).collect() } else { user.options.clone() };
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn chosen_servers(host: &str, user: &DnsOptions, network: ResolvFor) -> Vec<String> {
    if !user.servers.is_empty() {
        return user.servers.iter().map(IpAddr::to_string).collect();
    }
    if network == ResolvFor::Host {
        return values(host, "nameserver").into_iter().map(str::to_owned).collect();
    }
    let ipv6 = network == ResolvFor::BridgeWithIpv6;
    let usable = |address: &IpAddr| !address.is_loopback() && (ipv6 || address.is_ipv4()) && !is_link_local(address);
    let mut chosen: Vec<IpAddr> = servers(host).into_iter().filter(usable).collect();
    if chosen.is_empty() && network != ResolvFor::None {
        chosen.extend(DEFAULT_SERVERS);
        if ipv6 {
            chosen.extend(DEFAULT_SERVERS_6);
        }
    }
    chosen.iter().map(IpAddr::to_string).collect()
}

/// Reached by an interface of the host, whose zone means nothing inside.
fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(servers: &[&str], search: &[&str], options: &[&str]) -> DnsOptions {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        DnsOptions::parse(&strings(servers), &strings(search), &strings(options)).unwrap()
    }

    const HOST: &str = "# made by hand\nnameserver 127.0.0.1\nnameserver 192.0.2.53 ; the good one\nnameserver ::1\n\
        nameserver 2001:db8::53\nnameserver fe80::1%eth0\ndomain old.example\nsearch a.example b.example\n\
        options ndots:2\noptions edns0 trust-ad\n";

    #[test]
    fn loopback_servers_are_left_out() {
        assert_eq!(
            resolv_conf(HOST, &DnsOptions::default(), ResolvFor::Bridge),
            "nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2 edns0 trust-ad\n"
        );
        assert_eq!(
            resolv_conf(HOST, &DnsOptions::default(), ResolvFor::BridgeWithIpv6),
            "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.example b.example\noptions ndots:2 edns0 trust-ad\n"
        );
    }

    #[test]
    fn public_servers_replace_none_at_all_on_a_bridge_only() {
        let host = "nameserver 127.0.0.1\n";
        assert_eq!(
            resolv_conf(host, &DnsOptions::default(), ResolvFor::Bridge),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        assert_eq!(
            resolv_conf("", &DnsOptions::default(), ResolvFor::BridgeWithIpv6),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"
        );
        assert_eq!(resolv_conf(host, &DnsOptions::default(), ResolvFor::None), "");
    }

    #[test]
    fn the_user_replaces_each_kind_alone() {
        assert_eq!(
            resolv_conf(HOST, &user(&["127.0.0.1", "9.9.9.9"], &[], &[]), ResolvFor::Bridge),
            "nameserver 127.0.0.1\nnameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2 edns0 trust-ad\n"
        );
        assert_eq!(
            resolv_conf(HOST, &user(&[], &["."], &["timeout:1", "rotate"]), ResolvFor::Bridge),
            "nameserver 192.0.2.53\noptions timeout:1 rotate\n"
        );
        assert_eq!(
            resolv_conf(HOST, &user(&[], &["c.example"], &[]), ResolvFor::Host),
            "nameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver ::1\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\n\
             search c.example\noptions ndots:2 edns0 trust-ad\n"
        );
    }

    #[test]
    fn the_hosts_file_is_untouched_in_its_own_namespace() {
        assert_eq!(resolv_conf(HOST, &DnsOptions::default(), ResolvFor::Host), HOST);
    }

    #[test]
    fn the_stub_of_systemd_resolved_is_looked_behind() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(host_resolv_conf(root.path()).unwrap(), "");
        write("etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0\n");
        assert_eq!(host_resolv_conf(root.path()).unwrap(), "nameserver 127.0.0.53\noptions edns0\n");
        write(RESOLVED_FILE, "nameserver 192.0.2.1\n");
        assert_eq!(host_resolv_conf(root.path()).unwrap(), "nameserver 192.0.2.1\n");
        write("etc/resolv.conf", "nameserver 127.0.0.53\nnameserver 192.0.2.7\n");
        assert_eq!(host_resolv_conf(root.path()).unwrap(), "nameserver 127.0.0.53\nnameserver 192.0.2.7\n");
    }

    #[test]
    fn refuses_with_dockers_words() {
        let parse = |servers: &[&str], search: &[&str], options: &[&str]| {
            let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            DnsOptions::parse(&strings(servers), &strings(search), &strings(options)).unwrap_err().to_string()
        };
        assert_eq!(parse(&["foo"], &[], &[]), "IP address is not correctly formatted: foo");
        assert_eq!(parse(&[], &["a b"], &[]), "a b is not a valid domain");
        assert_eq!(parse(&[], &["a\nnameserver 1.1.1.1"], &[]), "a\nnameserver 1.1.1.1 is not a valid domain");
        assert_eq!(parse(&[], &["-a"], &[]), "-a is not a valid domain");
        assert!(parse(&[], &[], &["a\nb"]).contains("is not a valid resolver option"));
        assert!(parse(&[], &[], &[""]).contains("is not a valid resolver option"));
    }
}
