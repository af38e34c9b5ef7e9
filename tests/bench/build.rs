//! Tells the crate which compiler builds it: instruction counts hold for one only.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-V").output().map(|output| output.stdout);
    let version = String::from_utf8(version.unwrap_or_default()).unwrap_or_default();
    println!("cargo::rustc-env=STRIDE_RUSTC={}", version.trim());
    println!("cargo::rerun-if-changed=build.rs");
}
