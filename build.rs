//! Links the static program with its relocations packed (`DT_RELR`): 5 KiB of them instead of 440, which every start reads
//! and applies, that of a supervisor too. The linkers of Debian and Ubuntu know it for x86-64; the C library's start code
//! does since musl 1.2.4.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("ENV") == "musl" && target("ARCH") == "x86_64" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
