//! Builds the shim, a shared library in C, on Linux. Elsewhere there is none, and tests say so.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=shim/faults.c");
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") != "linux" || target("POINTER_WIDTH") != "64" {
        return;
    }
    let Some(out) = std::env::var_os("OUT_DIR").map(|folder| PathBuf::from(folder).join("libfaults.so"))
    else {
        return;
    };
    let built = cc::Build::new()
        .warnings(true)
        .opt_level(1)
        .get_compiler()
        .to_command()
        .args(["-shared", "-fPIC", "-pthread", "-o"])
        .arg(&out)
        .arg("shim/faults.c")
        .status();
    match built {
        Ok(status) if status.success() => {
            println!("cargo::rustc-env=HIGHWATER_FAULT_SHIM={}", out.display());
        }
        other => println!("cargo::error=the C compiler could not build shim/faults.c: {other:?}"),
    }
}
