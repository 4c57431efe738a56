//! `${NAME}` and `${NAME:-default}` in the scalars of a tree; pure.

use super::file::{Node, Scalar, Value};
use super::problem::{Place, Problem, join};

/// The value of an environment variable.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Puts the environment's values into every scalar, keys of mappings too.
///
/// `$${` stands for a literal `${`. Values are taken as they are, never expanded again. What
/// cannot be expanded is broken afterwards, so that nobody complains of it again.
pub fn expand(node: &mut Node, path: &str, variable: Variable<'_>, problems: &mut Vec<Problem>) {
    let mut expand_scalar = |scalar: &mut Scalar, place: Place, path: &str| {
        let expanded = scalar.expand(variable);
        let expanded = expanded.map_err(|what| problems.push(Problem::new(place, path, what)));
        expanded.is_ok()
    };
    match &mut node.value {
        Value::Broken => {}
        Value::Scalar(scalar) => {
            if !expand_scalar(scalar, node.place, path) {
                node.value = Value::Broken;
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{index}]"), variable, problems);
            }
        }
        Value::Map(entries) => {
            entries.retain_mut(|entry| expand_scalar(&mut entry.name, entry.place, path));
            for entry in entries {
                expand(&mut entry.node, &join(path, &entry.name.text), variable, problems);
            }
        }
    }
}

impl Scalar {
    fn expand(&mut self, variable: Variable<'_>) -> Result<(), String> {
        if self.text.contains("${") {
            let text = expanded(&self.text, variable)?;
            self.written = Some(std::mem::replace(&mut self.text, text));
        }
        Ok(())
    }
}

fn expanded(text: &str, variable: Variable<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        let (inside, after) = after
            .split_once('}')
            .ok_or_else(|| "${ has no } after it; write $${ for the characters".to_owned())?;
        out.push_str(before);
        out.push_str(&value(inside, variable)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inside: &str, variable: Variable<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if name.is_empty() || !is_name {
        return Err(format!(
            "{name:?} cannot name a variable; write ${{NAME}} or ${{NAME:-default}}"
        ));
    }
    // As in a shell, `:-` is for what is unset or empty.
    let found = variable(name).filter(|found| default.is_none() || !found.is_empty());
    found.or_else(|| default.map(str::to_owned)).ok_or_else(|| {
        format!("{name} is not set in the environment; set it, or write ${{{name}:-default}}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let variable = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${PORT}".to_owned()),
            _ => None,
        };
        let found = expanded(text, &variable);
        match expected {
            Ok(text) => assert_eq!(found.as_deref(), Ok(text)),
            Err(part) => {
                assert!(found.as_ref().is_err_and(|what| what.contains(part)), "{found:?}");
            }
        }
    }

    #[test]
    fn variables_are_put_in() {
        check("${PORT}", Ok("8080"));
        check("127.0.0.1:${PORT}/${PORT}x", Ok("127.0.0.1:8080/8080x"));
        check("${NONE:-80}", Ok("80"));
        check("${NONE:-}", Ok(""));
        check("${EMPTY:-80}", Ok("80"));
        check("${EMPTY}", Ok(""));
        check("${NESTED}", Ok("${PORT}"));
        check("$PORT $${PORT}", Ok("$PORT ${PORT}"));
        check("${NONE}", Err("NONE is not set"));
        check("${PORT", Err("no }"));
        check("${}", Err("cannot name"));
        check("${a b}", Err("cannot name"));
        check("${1}", Err("cannot name"));
    }
}
