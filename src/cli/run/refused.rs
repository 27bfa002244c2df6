//! Flags that Docker's users may write and that nobody here would enforce: each is refused by name, with the reason and the
//! way out. None is ever dropped.

use crate::{flags::parse::Parsed, run::devices::is_vendor_device};

const REFUSED: [(&str, &str); 9] = [
    ("gpus", "no GPU can be passed to a container; give it single devices with --device"),
    ("link", "links are replaced by names on a network; use --network and --network-alias, or --add-host"),
    ("runtime", "sbx runs containers itself; choose how with --isolation=process or --isolation=vm"),
    ("use-api-socket", "a container gets no access to the engine; mount a socket of your own with -v"),
    ("kernel-memory", "the kernel has no such limit any more; use --memory"),
    ("cpu-count", "it exists on Windows only; use --cpus"),
    ("cpu-percent", "it exists on Windows only; use --cpus"),
    ("io-maxbandwidth", "it exists on Windows only; use --device-read-bps and --device-write-bps"),
    ("io-maxiops", "it exists on Windows only; use --device-read-iops and --device-write-iops"),
];

/// Refuses the first flag of the list that was given.
pub(crate) fn refuse(parsed: &Parsed) -> Result<(), String> {
    for (flag, why) in REFUSED {
        // What says the default asks for nothing.
        let asks = parsed.list(flag).iter().any(|value| !["", "0", "false"].contains(&value.as_str()));
        if asks {
            return Err(format!("--{flag} is not supported: {why}"));
        }
    }
    if parsed.switch("disable-content-trust") == Some(false) {
        return Err(
            "--disable-content-trust=false is not supported: image signatures are not verified; name the image \
                    by its digest"
                .to_owned(),
        );
    }
    if parsed.list("storage-opt").iter().any(|option| !option.contains('=')) {
        return Err("invalid storage option".to_owned());
    }
    if !["", "local"].contains(&parsed.text("volume-driver")) {
        return Err("--volume-driver is not supported: the only driver is \"local\"".to_owned());
    }
    if let Some(device) = parsed.list("device").iter().find(|device| is_vendor_device(device)) {
        return Err(format!("--device {device} is not supported: devices are named by their path below /dev"));
    }
    Ok(())
}
