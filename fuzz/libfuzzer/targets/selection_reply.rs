#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    _ = cloister_fuzz::choosers::selection_reply(bytes);
});
