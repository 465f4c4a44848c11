#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    _ = cloister_fuzz::messages::public_key(bytes);
});
