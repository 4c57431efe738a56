//! `vestibule::fuzzing::rules` and `packet` on right events.

#![no_main]

use vestibule_fuzz::Json;

const ROOMS: [&str; 4] = ["lobby", "room:{0.room}", "{0}", "{event}:{1.0}"];
const STAMPS: [&str; 4] = ["{sid}", "{event}", "{0.from}", "{0.as}{0.as}"];

libfuzzer_sys::fuzz_target!(|input: (u8, String, Vec<Json>)| {
    let (choice, name, mut values) = input;
    values.insert(0, Json::Text(name));
    let event = Json::List(values).to_string();
    let room = ROOMS[usize::from(choice) % 4];
    let stamp = STAMPS[usize::from(choice / 4) % 4];
    vestibule::fuzzing::rules(format!("{room}\n{stamp}\n{event}").as_bytes());
    vestibule::fuzzing::packet(format!("2{event}").as_bytes());
    vestibule::fuzzing::packet(format!("53-{event}").as_bytes());
});
