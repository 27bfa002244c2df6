//! A registry that misbehaves on purpose: it serves one image and does one thing wrong.
//!
//! It listens on a unix socket of this process; `socat` inside the machine makes a TCP port of it, since the machine
//! has a network of its own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use super::image::{Image, Parts, sha256};
use super::machine::Machine;
use super::wait::eventually;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Nothing,
    /// One bit of the layer.
    LayerBit,
    /// One bit of the configuration.
    ConfigBit,
    /// One bit of the manifest, asked for by digest.
    ManifestBit,
    /// The layer ends early, and the length says so.
    LayerShort,
    /// The layer goes on after its size, for ever if one lets it.
    LayerEndless,
    /// The connection breaks in the middle of the layer, once; ranges are honoured afterwards.
    CutOnce,
    /// The same, but a request for a range is answered from the beginning.
    CutOnceNoRanges,
    /// The connection breaks in the middle of the layer, every time.
    CutAlways,
    /// A web page instead of a manifest.
    HtmlManifest,
    /// JSON that is no manifest.
    EmptyManifest,
    /// A manifest of 200 MiB.
    HugeManifest,
    /// JSON 100,000 levels deep.
    DeepManifest,
    /// A document that is a manifest and an index at once (CVE-2021-41190).
    BothKinds,
    /// Redirects without end.
    RedirectLoop,
    /// 503 for everything, twice; then all is well.
    BusyTwice,
    /// 500 for everything.
    AlwaysBroken,
    /// 429 for everything.
    TooMany,
    /// Wants a bearer token, and the realm gives a page instead of one.
    TokenIsNoToken,
    /// Wants a bearer token from a real token service.
    Bearer,
    /// The configuration names another layer than the manifest (wrong `diff_ids`).
    WrongDiffId,
    /// The manifest names a layer size that is a lie.
    WrongSize,
}

/// A running double. It ends with this value.
pub struct Double<'a> {
    machine: &'a Machine,
    bridge: Child,
    port: u16,
    /// Every request: method, path, and the headers that matter.
    pub requests: Arc<Mutex<Vec<String>>>,
}

struct Server {
    fault: Fault,
    parts: Parts,
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl<'a> Double<'a> {
    /// Starts one that serves `box:1`.
    #[track_caller]
    pub fn start(machine: &'a Machine, port: u16, fault: Fault) -> Self {
        let socket = machine.path(&format!("double-{port}"));
        let listener = UnixListener::bind(&socket).expect("a new socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let address = format!("127.0.0.1:{port}");
        let server = Arc::new(Server { fault, parts: parts(fault), address, requests: Arc::clone(&requests) });
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                // A client that goes away in the middle is the client's business.
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        let mut bridge = machine.command("socat");
        let listen = format!("TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr");
        bridge.args([&listen, &format!("UNIX-CONNECT:{}", socket.display())]);
        let bridge = bridge.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("socat starts");
        eventually("the double", || (machine.sh(&format!("ss -Hltn | grep -q :{port}")).status == 0).then_some(()));
        Self { machine, bridge, port, requests }
    }

    /// The image that it serves.
    pub fn reference(&self) -> String {
        format!("127.0.0.1:{}/box:1", self.port)
    }

    /// How many requests contained a text.
    pub fn asked(&self, text: &str) -> usize {
        self.requests.lock().expect("no server thread panics").iter().filter(|request| request.contains(text)).count()
    }
}

impl Drop for Double<'_> {
    fn drop(&mut self) {
        drop(self.machine.sh(&format!("pkill -f 'TCP4-LISTEN:{},' || true", self.port)));
        drop(self.bridge.wait());
    }
}

fn parts(fault: Fault) -> Parts {
    let mut parts = Image::busybox().parts();
    let mut manifest: serde_json::Value = serde_json::from_slice(&parts.manifest.data).expect("our own JSON");
    match fault {
        Fault::WrongDiffId => {
            let text = String::from_utf8_lossy(&parts.config.data).replace(&parts.layers[0].digest, &"0".repeat(64));
            parts.config = super::image::Blob::new(text.into_bytes());
            manifest["config"]["digest"] = format!("sha256:{}", parts.config.digest).into();
            manifest["config"]["size"] = parts.config.data.len().into();
        }
        Fault::WrongSize => manifest["layers"][0]["size"] = (parts.layers[0].data.len() - 512).into(),
        Fault::BothKinds => manifest["manifests"] = serde_json::json!([]),
        _ => return parts,
    }
    parts.manifest = super::image::Blob::new(manifest.to_string().into_bytes());
    parts
}

/// A request, as far as it matters here.
struct Request {
    path: String,
    range: Option<usize>,
    bearer: bool,
}

impl Server {
    fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let found = headers.iter().find(|line| line.to_ascii_lowercase().starts_with(name));
            found.map(|line| line[name.len()..].trim().to_owned())
        };
        let range = header("range:").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        let bearer = header("authorization:").is_some_and(|value| value == "Bearer good");
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let log = format!("{first} range={range:?} authorization={:?}", header("authorization:"));
        let count = {
            let mut requests = self.requests.lock().expect("no server thread panics");
            requests.push(log);
            requests.len()
        };
        self.answer(&mut stream, &Request { path, range, bearer }, count)
    }

    fn answer(&self, stream: &mut UnixStream, request: &Request, count: usize) -> std::io::Result<()> {
        let path = request.path.as_str();
        match self.fault {
            Fault::AlwaysBroken => return reply(stream, "500 Internal Server Error", "", b"broken"),
            Fault::TooMany => return reply(stream, "429 Too Many Requests", "Retry-After: 1\r\n", b"slow down"),
            Fault::BusyTwice if count <= 2 => {
                return reply(stream, "503 Service Unavailable", "Retry-After: 0\r\n", b"");
            }
            Fault::RedirectLoop if path.len() > 4 => {
                let again = format!("Location: http://{}{path}\r\n", self.address);
                return reply(stream, "307 Temporary Redirect", &again, b"");
            }
            Fault::TokenIsNoToken | Fault::Bearer if path.starts_with("/token") => {
                let token: &[u8] =
                    if self.fault == Fault::Bearer { br#"{"token":"good"}"# } else { b"<html>no</html>" };
                return reply(stream, "200 OK", "", token);
            }
            Fault::TokenIsNoToken | Fault::Bearer if !request.bearer => {
                let address = &self.address;
                let challenge =
                    format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"double\"\r\n");
                return reply(stream, "401 Unauthorized", &challenge, b"{}");
            }
            _ => {}
        }
        if path == "/v2/" {
            return reply(stream, "200 OK", "", b"{}");
        }
        if path.contains("/manifests/") {
            return self.manifest(stream);
        }
        let blobs = self.parts.layers.iter().chain([&self.parts.config]);
        match blobs.into_iter().find(|blob| path.ends_with(&blob.digest)) {
            Some(blob) if blob.digest == self.parts.config.digest => {
                let mut data = blob.data.clone();
                data[20] ^= u8::from(self.fault == Fault::ConfigBit);
                reply(stream, "200 OK", "", &data)
            }
            Some(blob) => self.layer(stream, &blob.data, request.range),
            None => {
                reply(stream, "404 Not Found", "", br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}"#)
            }
        }
    }

    fn manifest(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        let good = &self.parts.manifest;
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
        let named = format!("{kind}Docker-Content-Digest: sha256:{}\r\n", good.digest);
        match self.fault {
            Fault::HtmlManifest => reply(stream, "200 OK", "Content-Type: text/html\r\n", b"<html>welcome</html>"),
            Fault::EmptyManifest => reply(stream, "200 OK", kind, b"{}"),
            Fault::HugeManifest => reply(stream, "200 OK", kind, &vec![b' '; 200 << 20]),
            Fault::DeepManifest => reply(stream, "200 OK", kind, "[".repeat(100_000).as_bytes()),
            Fault::ManifestBit => {
                let mut data = good.data.clone();
                let last = data.len() - 5;
                data[last] ^= 1;
                reply(stream, "200 OK", &named, &data)
            }
            _ => reply(stream, "200 OK", &named, &good.data),
        }
    }

    fn layer(&self, stream: &mut UnixStream, data: &[u8], range: Option<usize>) -> std::io::Result<()> {
        let half = data.len() / 2;
        let started = self
            .requests
            .lock()
            .expect("no server thread panics")
            .iter()
            .filter(|r| r.contains(&self.parts.layers[0].digest))
            .count();
        match (self.fault, range) {
            (Fault::LayerBit, _) => {
                let mut data = data.to_vec();
                data[half] ^= 1;
                reply(stream, "200 OK", "", &data)
            }
            (Fault::LayerShort, _) => reply(stream, "200 OK", "", &data[..half]),
            (Fault::LayerEndless, _) => {
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                stream.write_all(data)?;
                loop {
                    stream.write_all(&[0; 65536])?;
                }
            }
            (Fault::CutAlways, _) => cut(stream, data, half),
            (Fault::CutOnce | Fault::CutOnceNoRanges, _) if started == 1 => cut(stream, data, half),
            (Fault::CutOnce, Some(start)) if start < data.len() => {
                let place = format!("Content-Range: bytes {start}-{}/{}\r\n", data.len() - 1, data.len());
                reply(stream, "206 Partial Content", &place, &data[start..])
            }
            _ => reply(stream, "200 OK", "", data),
        }
    }
}

fn cut(stream: &mut UnixStream, data: &[u8], at: usize) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", data.len())?;
    stream.write_all(&data[..at])
}

fn reply(stream: &mut UnixStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)
}

/// The digest of what the double serves, for requests by digest.
pub fn digest_of_busybox() -> String {
    sha256(&Image::busybox().parts().manifest.data)
}
