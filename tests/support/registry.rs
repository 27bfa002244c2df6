//! A real registry (Debian's `docker-registry`) on the machine's own loopback, plain, with TLS, or with a password.

use std::fs;
use std::process::{Child, Stdio};

use super::machine::Machine;
use super::wait::eventually;

/// How a registry is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Plain HTTP, open to all.
    Open,
    /// HTTPS with a certificate of a private authority, and a user `bob` with the password `secret`.
    Private,
}

/// A running registry. It ends with this value.
pub struct Registry<'a> {
    machine: &'a Machine,
    process: Child,
    pid_file: String,
    address: String,
    access: Access,
}

impl<'a> Registry<'a> {
    /// Starts one. Each machine has its own loopback, so the port needs only to be different on one machine.
    #[track_caller]
    pub fn start(machine: &'a Machine, port: u16, access: Access) -> Self {
        let address = format!("127.0.0.1:{port}");
        let folder = machine.path(&format!("registry-{port}"));
        fs::create_dir(&folder).expect("a new folder");
        let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let mut settings = format!(
            "version: 0.1\nlog: {{ level: warn, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n\
             http:\n  addr: \"{address}\"\n",
            at("data")
        );
        if access == Access::Private {
            machine.sh(&private_files(&at(""), port)).expect_ok();
            settings += &format!("  tls: {{ certificate: {}, key: {} }}\n", at("server.crt"), at("server.key"));
            settings += &format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", at("htpasswd"));
        }
        fs::write(at("settings.yml"), settings).expect("a new file");
        let log = fs::File::create(at("log")).expect("a new file");
        let mut command = machine.command("sh");
        let script = r#"echo $$ >"$0/pid"; exec docker-registry serve "$0/settings.yml""#;
        command.args(["-c", script, &at("")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().expect("docker-registry starts (scripts/setup)");
        eventually("the registry", || {
            let ended = process.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "{}", fs::read_to_string(at("log")).unwrap_or_default());
            (machine.sh(&format!("nc -z 127.0.0.1 {port}")).status == 0).then_some(())
        });
        Self { machine, process, pid_file: at("pid"), address, access }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A reference to something in this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Fills it from an archive that `Image::archive` made, by an independent program.
    #[track_caller]
    pub fn push(&self, archive: &str, name: &str, options: &str) {
        let machine = self.machine;
        let port = self.address.rsplit(':').next().unwrap_or_default();
        let access = match self.access {
            Access::Open => "--dest-tls-verify=false".to_owned(),
            Access::Private => {
                format!("--dest-creds bob:secret --dest-cert-dir {}", machine.at(&format!("registry-{port}/certs")))
            }
        };
        let target = self.reference(name);
        machine
            .sh(&format!("skopeo --insecure-policy copy -q {access} {options} {archive} docker://{target}"))
            .expect_ok();
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        // The child of this process is only the way into the machine, and ends with the registry.
        drop(self.machine.sh(&format!("kill $(cat {})", self.pid_file)));
        drop(self.process.wait());
    }
}

/// Makes a private authority, a certificate for 127.0.0.1, a client folder `certs` and a password file.
fn private_files(folder: &str, port: u16) -> String {
    format!(
        r#"cd {folder}
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=test authority {port}" \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt 2>log
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=registry \
            -keyout server.key -out server.csr 2>>log
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n' >extensions
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out server.crt 2>>log
        mkdir certs; cp ca.crt certs/
        printf 'bob:%s\n' '{BCRYPT_OF_SECRET}' >htpasswd"#
    )
}

/// `secret`, as bcrypt with a cost of 5; the registry takes nothing else.
const BCRYPT_OF_SECRET: &str = "$2b$05$JIQY8DHobNv445exHg5YmeDB2KxR5Kbb2Vvs9YWHMkFF.yimUCP9K";
