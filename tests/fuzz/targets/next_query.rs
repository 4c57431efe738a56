//! `vestibule::fuzzing::next_query` on any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vestibule::fuzzing::next_query(data));
