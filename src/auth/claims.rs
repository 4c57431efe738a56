//! The JSON of a token, read so that no two readers could differ; pure.

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::identity::{Denial, at};

/// An object in which no name stands twice.
pub struct Claims(Map<String, Value>);

/// Bytes, and objects within objects.
const SIZE_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 8;
/// JavaScript counts exactly so far.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Claims {
    pub fn parse(json: &[u8]) -> Result<Self, Denial> {
        if json.len() > SIZE_MAX {
            return Err(Denial::MALFORMED);
        }
        let claims: Self = serde_json::from_slice(json).map_err(|error| {
            let twice = error.is_data() && error.to_string().starts_with(TWICE);
            if twice { Denial::Refused("duplicate_claim") } else { Denial::MALFORMED }
        })?;
        let deep = claims.0.values().any(|value| depth(value) > DEPTH_MAX);
        if deep { Err(Denial::MALFORMED) } else { Ok(claims) }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A text by its name, or by a path as `app_metadata.user_id`. Names with dots in them, which
    /// are URLs mostly, go first.
    pub fn text_at(&self, path: &str) -> Option<&str> {
        if let Some(value) = self.get(path) {
            return value.as_str();
        }
        let (first, rest) = path.split_once('.')?;
        at(self.get(first)?, rest)?.as_str()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// A moment in seconds; `None` if there is none, an error if it is no number.
    pub fn date(&self, name: &str) -> Result<Option<f64>, Denial> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_f64().ok_or(Denial::Refused("bad_date"))?;
        if !number.is_finite() || number.abs() >= EXACT {
            return Err(Denial::Refused("date_out_of_range"));
        }
        Ok(Some(number))
    }

    /// Refuses what is over, or has not begun; returns when it ends, in milliseconds.
    pub fn check_times(&self, now: i64, leeway: f64) -> Result<i64, Denial> {
        // Seconds of this century are exact.
        #[expect(clippy::cast_precision_loss, reason = "milliseconds are far below 2^53")]
        let now = (now as f64 / 1000.0).floor();
        let exp = self.date("exp")?.ok_or(Denial::Refused("missing_exp"))?;
        if exp <= now - leeway {
            return Err(Denial::EXPIRED);
        }
        if self.date("nbf")?.is_some_and(|nbf| nbf > now + leeway) {
            return Err(Denial::NOT_YET);
        }
        if self.date("iat")?.is_some_and(|iat| iat > now + leeway) {
            return Err(Denial::FROM_LATER);
        }
        #[expect(clippy::cast_possible_truncation, reason = "dates are below 2^53")]
        Ok((exp * 1000.0) as i64)
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}

const TWICE: &str = "a name stands twice";

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ClaimsVisitor)
    }
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(de::Error::custom(TWICE));
            }
        }
        Ok(Claims(claims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_only_and_each_name_once() {
        for (json, denial) in [
            (r#"[1]"#, Denial::MALFORMED),
            (r#"{"a":1,"a":1}"#, Denial::Refused("duplicate_claim")),
            (r#"{"a":1}x"#, Denial::MALFORMED),
            (r#"{"a":[[[[[[[[[1]]]]]]]]]}"#, Denial::MALFORMED),
        ] {
            assert_eq!(Claims::parse(json.as_bytes()).err(), Some(denial), "{json}");
        }
        let claims = Claims::parse(br#"{"exp":1800000000.5,"nbf":"x"}"#).ok().unwrap();
        assert_eq!(claims.date("exp"), Ok(Some(1_800_000_000.5)));
        assert!(claims.date("nbf").is_err());
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_a_path() {
        let json =
            br#"{"sub":"a","https://a.test/uid":"b","app":{"id":"c","n":1},"x.y":2,"x":{"y":"z"}}"#;
        let claims = Claims::parse(json).ok().unwrap();
        for (path, expected) in [
            ("sub", Some("a")),
            ("https://a.test/uid", Some("b")),
            ("app.id", Some("c")),
            ("app.n", None),
            ("app", None),
            ("app.id.x", None),
            // The name counts, whatever it holds.
            ("x.y", None),
        ] {
            assert_eq!(claims.text_at(path), expected, "{path}");
        }
    }
}
