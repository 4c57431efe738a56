//! `vestibule::fuzzing::binary` on right JSON and its attachments.

#![no_main]

use vestibule_fuzz::Json;

libfuzzer_sys::fuzz_target!(|input: (Vec<Json>, Vec<Vec<u8>>)| {
    let (values, parts) = input;
    let mut data = Json::List(values).to_string().into_bytes();
    for part in parts {
        data.push(b'\n');
        data.extend(part);
    }
    vestibule::fuzzing::binary(&data);
});
