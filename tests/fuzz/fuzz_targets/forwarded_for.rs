#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookward_fuzz::run("forwarded_for", data));
