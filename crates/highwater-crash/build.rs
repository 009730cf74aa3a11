//! Builds the recorder, a shared library that the recorded process loads before the C library.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=recorder/recorder.c");
    let library = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("recorder.so");
    println!("cargo:rustc-env=HIGHWATER_CRASH_RECORDER={}", library.display());
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return ExitCode::SUCCESS;
    }
    let compiler = cc::Build::new().opt_level(2).pic(true).warnings(true).get_compiler();
    let status = compiler
        .to_command()
        .args(["-shared", "-D_GNU_SOURCE", "recorder/recorder.c", "-ldl", "-pthread", "-o"])
        .arg(&library)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        other => {
            println!("cargo:warning=recorder/recorder.c was not built: {other:?}");
            ExitCode::FAILURE
        }
    }
}
