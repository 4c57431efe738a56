//! `vestibule::fuzzing::h2_frames` on any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vestibule::fuzzing::h2_frames(data));
