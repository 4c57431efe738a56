//! `vestibule::fuzzing::resp` on any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vestibule::fuzzing::resp(data));
