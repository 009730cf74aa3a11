//! See `highwater-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = highwater_fuzz::rows::damaged(data);
});
