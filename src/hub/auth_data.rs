//! What a client writes beside its CONNECT, its `auth`; pure.
//!
//! It stays the client's own words: what JavaScript writes and our texts do not hold, in one of its
//! fields, takes none of the others with it.

use serde_json::{Map, Value};

use crate::exchange::query;

use super::json;

/// An object, as JSON; `None` is the empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthData(Option<Box<str>>);

impl AuthData {
    /// From a CONNECT's data, which is right JSON of an object, or nothing.
    pub fn new(json: &str) -> Self {
        let json = json.trim();
        Self((!json.is_empty() && json != EMPTY).then(|| json.into()))
    }

    /// From the query of an old client's CONNECT: a name that comes twice has a list, as Node reads
    /// it.
    pub fn of_query(text: &str) -> Self {
        let mut auth = Map::new();
        for (name, value) in query::fields(text).take(QUERY_FIELDS_MAX) {
            let value = Value::from(value);
            match auth.get_mut(name.as_ref()) {
                None => drop(auth.insert(name.into_owned(), value)),
                Some(Value::Array(values)) => values.push(value),
                Some(known) => *known = Value::Array(vec![known.take(), value]),
            }
        }
        Self::new(&Value::Object(auth).to_string())
    }

    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(EMPTY)
    }

    pub fn has(&self, name: &str) -> bool {
        json::field(self.as_str(), name).is_some()
    }

    /// Takes a field out of it; null if it is there and no value of ours.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let all = self.0.as_deref()?;
        let value = serde_json::from_str(json::field(all, name)?).unwrap_or_default();
        let mut rest = String::with_capacity(all.len());
        rest.push('{');
        for json::Field { key, value } in json::fields(all) {
            if json::is_called(key, name) {
                continue;
            }
            if rest.len() > 1 {
                rest.push(',');
            }
            rest.extend([key, ":", value]);
        }
        rest.push('}');
        *self = Self::new(&rest);
        Some(value)
    }
}

const EMPTY: &str = "{}";

/// As many fields as Node's `querystring` reads; the rest is left out.
const QUERY_FIELDS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_cannot_be_read_takes_no_other_with_it() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for strange in [r#""a\ud83d""#, "1e999", &deep] {
            let text = format!(r#" {{"x" : {strange}, "pid":"p","\udc00":1,"p\u0069d":"q"}} "#);
            let mut auth = AuthData::new(&text);
            assert_eq!(auth.remove("pid"), Some(json!("q")), "the last counts");
            assert_eq!(auth.as_str(), format!(r#"{{"x":{strange},"\udc00":1}}"#));
            assert_eq!(auth.remove("pid"), None);
            assert_eq!(auth.remove("x"), Some(Value::Null));
            assert_eq!(auth.as_str(), r#"{"\udc00":1}"#);
        }
        let mut token = AuthData::new(r#"{"token":"t"}"#);
        assert_eq!((token.remove("token"), token), (Some(json!("t")), AuthData::default()));
        assert_eq!(AuthData::new("").as_str(), "{}");
    }

    #[test]
    fn a_query_is_read_as_node_reads_it() {
        let auth = AuthData::of_query("a=1&b=%22&a=2&a=3");
        assert_eq!(auth.as_str(), r#"{"a":["1","2","3"],"b":"\""}"#);
        assert_eq!(AuthData::of_query(""), AuthData::default());
    }
}
