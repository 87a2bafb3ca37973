#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookward_fuzz::run("scheme_yaml", data));
