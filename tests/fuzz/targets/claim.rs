//! `vestibule::fuzzing::claim` on any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vestibule::fuzzing::claim(data));
