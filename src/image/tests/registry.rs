//! Against the real `docker-registry` on loopback, filled by skopeo: what an ordinary registry does, with and without TLS
//! and passwords.

mod fixture;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixture::double::{Double, Reply};
use fixture::{Made, MemorySink, Place, chain, have, registries, request, run};
use sbx_image::{
    Digest, LoginRequest, Platform, PullRequest, Reference, Registries, Silent, Store, Stored, login, logout,
    media_type, pull,
};
use serde_json::json;

/// bcrypt of `secret`.
const HTPASSWD: &str = "bob:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry process; killed when dropped.
struct Registry {
    child: Child,
    host: String,
    dir: tempfile::TempDir,
}

impl Registry {
    /// `extra` is YAML at the top level, `http` YAML inside of `http:`.
    fn start(extra: &str, http: &str) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        // The port is free when asked for; if another takes it meanwhile, the next one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let config = format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n{extra}\nhttp:\n  addr: \"{host}\"\n{http}\n",
                dir.path().join("data").display()
            );
            let path = dir.path().join("config.yml");
            std::fs::write(&path, config).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&host).is_ok() {
                    return Registry { child, host, dir };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Copies an image of an OCI layout in here.
    fn push(&self, layout: &Path, name: &str, options: &[&str]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]).args(options);
        skopeo.arg(format!("oci:{}:latest", layout.display())).arg(format!("docker://{}", self.image(name)));
        run(&mut skopeo);
    }

    /// Puts a document under a tag.
    fn put_manifest(&self, path: &str, kind: &str, body: &str) {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let head = format!(
            "PUT /v2/{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.host,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An OCI layout with this image, tagged `latest`.
fn layout(dir: &Path, made: &Made) -> PathBuf {
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for blob in made.blobs.iter().chain([&made.config, &made.manifest]) {
        std::fs::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
    }
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(&made.manifest), "size": made.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

fn assert_pulls(name: &str, made: &Made, registries: &Registries) {
    let place = Place::new();
    let pulled = pull(&place.store, &request(name), registries, &place.sink, &Silent);
    let pulled = pulled.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
    assert_eq!(pulled.image.config.rootfs.diff_ids, made.parsed().rootfs.diff_ids);
    assert_eq!(place.store.verify().unwrap(), []);
    let layers = place.sink.layers.lock().unwrap();
    assert!(made.tars.iter().all(|tar| layers[&Digest::of(tar)] == *tar));
}

#[test]
fn every_format_that_a_registry_has_is_pulled() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start("", "");
    let made = Made::new(21, 4, 100_000);
    let layout = layout(registry.dir.path(), &made);
    let own = registries(registry.dir.path());
    registry.push(&layout, "team/oci:1", &[]);
    assert_pulls(&registry.image("team/oci:1"), &made, &own);
    assert_pulls(&registry.image(&format!("team/oci@{}", Digest::of(&made.manifest))), &made, &own);
    // skopeo 1.9 knows no zstd layers in Docker's manifests: one layer, which is gzip.
    let single = Made::new(27, 1, 100_000);
    let single_dir = tempfile::tempdir().unwrap();
    let single_layout = self::layout(single_dir.path(), &single);
    registry.push(&single_layout, "team/docker:1", &["--format", "v2s2"]);
    assert_pulls(&registry.image("team/docker:1"), &single, &own);
    registry.push(&layout, "team/zstd:1", &["--dest-compress-format", "zstd", "--format", "oci"]);
    assert_pulls(&registry.image("team/zstd:1"), &made, &own);
    let named_localhost = registry.host.replace("127.0.0.1", "localhost");
    assert_pulls(&format!("{named_localhost}/team/oci:1"), &made, &own);
}

#[test]
fn an_index_gives_the_image_of_the_platform_or_lists_what_there_is() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start("", "");
    let made = Made::new(22, 1, 10_000);
    registry.push(&layout(registry.dir.path(), &made), "team/multi:amd64", &[]);
    let entry = |architecture: &str| {
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(&made.manifest),
            "size": made.manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [entry("s390x"), entry("amd64")]});
    registry.put_manifest("team/multi/manifests/all", media_type::OCI_INDEX, &index.to_string());
    let place = Place::new();
    let own = registries(registry.dir.path());
    let name = registry.image("team/multi:all");
    let pulled = pull(&place.store, &request(&name), &own, &place.sink, &Silent).unwrap();
    assert_eq!(pulled.digest, Digest::of(index.to_string().as_bytes()));
    assert_eq!(pulled.image.digests[0].digest(), Some(pulled.digest));
    let platform = |text: &str| PullRequest {
        platform: Some(text.parse().unwrap()),
        ..PullRequest::new(Reference::parse(&name).unwrap())
    };
    let error = pull(&place.store, &platform("linux/arm64"), &own, &place.sink, &Silent).unwrap_err().to_string();
    let words = "no matching manifest for linux/arm64 in the manifest list entries";
    assert!(error.contains(words) && error.contains("linux/s390x, linux/amd64"), "{error}");
    // The entry says s390x, the image amd64: the index decides what is pulled, and the caller can see it.
    let lying = pull(&place.store, &platform("linux/s390x"), &own, &place.sink, &Silent).unwrap();
    let wanted: Platform = "linux/s390x".parse().unwrap();
    assert!(!wanted.is_served_by(&lying.image.config.platform()), "{}", lying.image.config.platform());
    let tag = registry.image("team/multi:none");
    let error = pull(&place.store, &request(&tag), &own, &place.sink, &Silent).unwrap_err().to_string();
    assert_eq!(error, format!("manifest for {tag} not found: manifest unknown"));
}

#[test]
fn login_pull_logout_with_a_password_file() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let htpasswd = files.path().join("htpasswd");
    std::fs::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!("auth: {{ htpasswd: {{ realm: r, path: {} }} }}", htpasswd.display());
    let registry = Registry::start(&auth, "");
    let made = Made::new(23, 2, 10_000);
    let layout = layout(registry.dir.path(), &made);
    registry.push(&layout, "team/secret:1", &["--dest-creds", "bob:secret"]);
    let name = registry.image("team/secret:1");
    let own = registries(files.path());
    let place = Place::new();
    let error = pull(&place.store, &request(&name), &own, &place.sink, &Silent).unwrap_err().to_string();
    assert!(error.contains("pull access denied for 127.0.0.1") && error.contains("'sbx login 127.0.0.1"), "{error}");
    let credentials = |password: &str| LoginRequest {
        server: registry.host.clone(),
        username: "bob".into(),
        password: password.into(),
    };
    let error = login(&credentials("wrong"), &own).unwrap_err().to_string();
    assert!(error.contains("unauthorized: incorrect username or password"), "{error}");
    assert!(!files.path().join("config.json").exists());
    let result = login(&credentials("secret"), &own).unwrap();
    assert_eq!(result.message, "Login Succeeded");
    assert_eq!(result.stored, Stored::File(files.path().join("config.json")));
    assert!(result.warning().unwrap().contains("stored unencrypted"));
    assert_pulls(&name, &made, &own);
    // What we have written is what others read.
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--tls-verify=false"]).arg("--authfile").arg(files.path().join("config.json"));
    run(skopeo.arg(format!("docker://{name}")));
    assert_eq!(logout(&registry.host, &own).unwrap(), format!("Removing login credentials for {}", registry.host));
    assert_eq!(logout(&registry.host, &own).unwrap(), format!("Not logged in to {}", registry.host));
    pull(&place.store, &request(&name), &own, &place.sink, &Silent).unwrap_err();
}

#[test]
fn credential_helpers_are_asked_and_told() {
    if !have(&["docker-registry", "skopeo", "sh"]) {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let htpasswd = files.path().join("htpasswd");
    std::fs::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!("auth: {{ htpasswd: {{ realm: r, path: {} }} }}", htpasswd.display());
    let registry = Registry::start(&auth, "");
    let made = Made::new(24, 1, 10_000);
    registry.push(&layout(registry.dir.path(), &made), "team/helped:1", &["--dest-creds", "bob:secret"]);
    // A helper that keeps one entry in a file.
    let state = files.path().join("state");
    let helper = files.path().join("docker-credential-testfile");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {0} ;;\nget) cat {0} 2>/dev/null || {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\nerase) rm -f {0} ;;\nesac\n",
        state.display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(files.path().join("config.json"), r#"{"credsStore":"testfile"}"#).unwrap();
    // The helper is found in $PATH, which belongs to the whole process: this test runs in a process of its own.
    let path = format!("{}:{}", files.path().display(), std::env::var("PATH").unwrap());
    if std::env::var_os("SBX_TEST_HELPER").is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "credential_helpers_are_asked_and_told", "--nocapture"]);
        run(again.env("PATH", path).env("SBX_TEST_HELPER", files.path()));
        return;
    }
    let first_dir = PathBuf::from(std::env::var_os("SBX_TEST_HELPER").unwrap());
    let own = registries(&first_dir);
    let server = registry.host.clone();
    let request_login = LoginRequest { server, username: "bob".into(), password: "secret".into() };
    let result = login(&request_login, &own).unwrap();
    assert_eq!(result.stored, Stored::Helper("testfile".into()));
    let config = std::fs::read_to_string(first_dir.join("config.json")).unwrap();
    assert!(config.contains("testfile") && !config.contains("Ym9i"), "{config}");
    assert_pulls(&registry.image("team/helped:1"), &made, &own);
    assert!(logout(&registry.host, &own).unwrap().starts_with("Removing login credentials"));
    assert!(!first_dir.join("state").exists());
}

/// An authority and a certificate for 127.0.0.1, since rustls takes no authority for a server.
fn certificates(dir: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        run(command.current_dir(dir).args(arguments.split(' ')));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch";
    for name in ["ca", "client-ca"] {
        openssl(&format!("req -x509 {key} -keyout {name}.key -out {name}.crt -days 30 -subj /CN={name}"));
    }
    std::fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    std::fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for (name, authority) in [("server", "ca"), ("client", "client-ca")] {
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -out {name}.crt -days 30 -extfile {name}.ext"
        ));
    }
}

#[test]
fn tls_with_a_private_authority_and_a_client_certificate() {
    if !have(&["docker-registry", "skopeo", "openssl"]) {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    certificates(dir);
    let tls = format!(
        "  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n    clientcas: [ {0}/client-ca.crt ]",
        dir.display()
    );
    let registry = Registry::start("", &tls);
    let certs = dir.join("certs.d").join(&registry.host);
    std::fs::create_dir_all(&certs).unwrap();
    for (from, to) in [("ca.crt", "ca.crt"), ("client.crt", "client.cert"), ("client.key", "client.key")] {
        std::fs::copy(dir.join(from), certs.join(to)).unwrap();
    }
    let made = Made::new(25, 2, 10_000);
    registry.push(&layout(registry.dir.path(), &made), "team/tls:1", &["--dest-cert-dir", certs.to_str().unwrap()]);
    let name = registry.image("team/tls:1");
    let with_certs = Registries { cert_dirs: vec![dir.join("certs.d")], ..registries(dir) };
    assert_pulls(&name, &made, &with_certs);
    let place = Place::new();
    let fails = |registries: &Registries| {
        chain(&pull(&place.store, &request(&name), registries, &place.sink, &Silent).unwrap_err())
    };
    let error = fails(&Registries { attempts: 1, ..registries(dir) });
    assert!(error.contains("400") || error.contains("certificate"), "{error}");
    std::fs::remove_file(certs.join("client.key")).unwrap();
    let error = fails(&with_certs);
    assert!(error.contains("client.cert") && error.contains("missing key"), "{error}");
    std::fs::remove_file(certs.join("client.cert")).unwrap();
    fails(&with_certs);
    std::fs::write(certs.join("ca.crt"), "rubbish").unwrap();
    let error = fails(&with_certs);
    assert!(error.contains("ca.crt") && error.contains("certificate"), "{error}");
}

#[test]
fn a_bearer_challenge_of_the_real_registry() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let service = Double::new(|_| Reply::new(200, r#"{"access_token":"anything"}"#));
    let auth = format!("auth: {{ silly: {{ realm: \"http://{}/token\", service: s }} }}", service.host());
    let registry = Registry::start(&auth, "");
    let made = Made::new(26, 2, 10_000);
    registry.push(&layout(registry.dir.path(), &made), "team/bearer:1", &["--dest-registry-token", "x"]);
    assert_pulls(&registry.image("team/bearer:1"), &made, &registries(registry.dir.path()));
    let asked = service.asked();
    assert!(asked.iter().any(|asked| asked.path.contains("service=s") && asked.path.contains("team%2Fbearer")));
}

#[test]
fn a_dead_registry_is_one_clear_error() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let name = format!("127.0.0.1:{port}/a:1");
    let error = pull(&store, &request(&name), &registries(dir.path()), &MemorySink::default(), &Silent).unwrap_err();
    let error = chain(&error);
    assert!(error.contains(&format!("registry 127.0.0.1:{port}")) && error.contains("Connection refused"), "{error}");
}
