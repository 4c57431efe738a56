//! JSON of all shapes, for property tests of what looks through it.

use proptest::prelude::*;
use serde_json::Value;

/// Its texts and names look like what stands around them; some of its values are `known`, and some
/// names are among `names`.
pub fn json(known: Value, names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(known),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u8>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ab\"\\\\{}\\[\\]:, é\u{1}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, move |inner| {
        let name = prop::sample::select(names).prop_map(str::to_owned);
        let name = prop_oneof![name, "[ab\"\\\\{}:é]{0,3}"];
        let fields = prop::collection::btree_map(name, inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The same as a client may write it: with space around everything, or with none.
pub fn written(value: &Value, pretty: bool) -> String {
    let text =
        if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.expect("a value is JSON")
}
