//! Images made from nothing but a static busybox: layers, configuration and the archive that `load` takes.
//!
//! The archive is what `docker save` writes today: an OCI image layout that has a `manifest.json` as well, so one file
//! serves every reader.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::tarball::{Entry, archive};

/// The image that most tests run.
pub const BUSYBOX: &str = "test/busybox:1";

/// An image that is about to be written.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    layers: Vec<Vec<u8>>,
    config: Value,
    architecture: &'static str,
}

/// A blob with its digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// SHA-256 in hexadecimal.
    pub digest: String,
    /// Content.
    pub data: Vec<u8>,
}

/// An image as a registry keeps it.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Uncompressed layers, the lowest first.
    pub layers: Vec<Blob>,
    /// Configuration.
    pub config: Blob,
    /// Manifest.
    pub manifest: Blob,
}

impl Blob {
    /// Computes the digest.
    pub fn new(data: Vec<u8>) -> Self {
        Self { digest: sha256(&data), data }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.data.len() })
    }
}

impl Image {
    /// An image of the given layers (uncompressed tars).
    pub fn new(name: &str, layers: Vec<Vec<u8>>) -> Self {
        let config = json!({ "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["sh"] });
        Self { name: name.to_owned(), layers, config, architecture: architecture() }
    }

    /// The same image, but it says that it is for another architecture.
    pub fn on(self, architecture: &'static str) -> Self {
        Self { architecture, ..self }
    }

    /// busybox with all its commands, a user database and empty mount points: [`BUSYBOX`].
    pub fn busybox() -> Self {
        Self::new(BUSYBOX, vec![busybox_layer().clone()])
    }

    /// busybox with something changed in its configuration (OCI image-spec, `config.md`, the object `config`).
    pub fn busybox_with(name: &str, change: &[(&str, Value)]) -> Self {
        let mut image = Self { name: name.to_owned(), ..Self::busybox() };
        for (key, value) in change {
            image.config[*key] = value.clone();
        }
        image
    }

    /// busybox with more layers on top.
    pub fn busybox_under(name: &str, layers: Vec<Vec<u8>>) -> Self {
        let mut image = Self { name: name.to_owned(), ..Self::busybox() };
        image.layers.extend(layers);
        image
    }

    /// The path of an archive of this image for `load`; made once for each content.
    pub fn archive(&self) -> PathBuf {
        let bytes = self.bytes();
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}.tar", sha256(&bytes)));
        if !path.exists() {
            let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
            file.write_all(&bytes).expect("the archive fits on the disk");
            file.persist(&path).expect("a file can be renamed");
        }
        path
    }

    /// Layers, configuration and manifest.
    pub fn parts(&self) -> Parts {
        let layers: Vec<Blob> = self.layers.iter().cloned().map(Blob::new).collect();
        let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let history: Vec<Value> = (0..layers.len())
            .map(|n| json!({ "created": "2024-01-02T03:04:05Z", "created_by": format!("layer {n}"), "comment": "made by a test" }))
            .collect();
        let config = Blob::json(&json!({
            "architecture": self.architecture, "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": self.config, "rootfs": { "type": "layers", "diff_ids": ids }, "history": history,
        }));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": layers.iter().map(|l| l.descriptor("application/vnd.oci.image.layer.v1.tar")).collect::<Vec<_>>(),
        }));
        Parts { layers, config, manifest }
    }

    /// The archive itself.
    pub fn bytes(&self) -> Vec<u8> {
        let Parts { layers, config, manifest } = self.parts();
        let mut named = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        let tag = self.name.rsplit(':').next().unwrap_or("latest");
        named["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/{}", self.name), "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named],
        });
        let paths: Vec<String> = layers.iter().map(Blob::path).collect();
        let docker = json!([{ "Config": config.path(), "RepoTags": [self.name], "Layers": paths }]);
        let mut entries = vec![
            Entry::file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#),
            Entry::file("index.json", 0o644, index.to_string()),
            Entry::file("manifest.json", 0o644, docker.to_string()),
            Entry::folder("blobs/", 0o755),
            Entry::folder("blobs/sha256/", 0o755),
        ];
        let blobs = layers.iter().chain([&config, &manifest]);
        entries.extend(blobs.map(|blob| Entry::file(&blob.path(), 0o644, &blob.data)));
        archive(&entries)
    }
}

/// The architecture's name in OCI images (that of Go).
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// SHA-256 in hexadecimal, by coreutils: the suites must not trust the code that they test.
pub fn sha256(data: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum");
    child.stdin.take().expect("a pipe").write_all(data).expect("sha256sum reads everything");
    let output = child.wait_with_output().expect("sha256sum ends");
    String::from_utf8_lossy(&output.stdout[..64]).into_owned()
}

/// The one layer of [`BUSYBOX`].
pub fn busybox_layer() -> &'static Vec<u8> {
    static LAYER: OnceLock<Vec<u8>> = OnceLock::new();
    LAYER.get_or_init(|| archive(&busybox_entries()))
}

fn busybox_entries() -> Vec<Entry> {
    let list = Command::new("busybox").arg("--list").output().expect("busybox is installed (scripts/setup)");
    let binary = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox")).expect("busybox can be read");
    let folders = [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
        ("var/", 0o755),
        ("data/", 0o755),
    ];
    let mut entries: Vec<Entry> = folders.iter().map(|(name, mode)| Entry::folder(name, *mode)).collect();
    entries.push(Entry::file("bin/busybox", 0o755, binary));
    let applets = String::from_utf8_lossy(&list.stdout).into_owned();
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        entries.push(Entry::symlink(&format!("bin/{applet}"), "busybox"));
    }
    entries.extend([
        Entry::file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
        Entry::file("etc/group", 0o644, "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\naudio:x:29:\n"),
        Entry::folder("home/alice/", 0o750).owned(1000, 1000),
        Entry::file("etc/not-executable", 0o644, "#!/bin/sh\n"),
        Entry::file("data/seed", 0o644, "from the image\n"),
        Entry::file("usr/bin/cannot-read", 0o600, "secret\n"),
    ]);
    entries
}
