//! What differs between two configurations, a line each; pure.

use super::yaml::Yaml;

/// `+` is new, `-` is gone, `~` has another value. A part that is new or gone as a whole is one line.
pub fn changes(before: &Yaml, after: &Yaml) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", before, after, &mut lines);
    lines
}

fn compare(path: &str, before: &Yaml, after: &Yaml, lines: &mut Vec<String>) {
    let none = |value: &Yaml| matches!(value, Yaml::List(items) if items.is_empty());
    let (had, has) = (parts(before), parts(after));
    // A list without anything has the same kind of parts as the other.
    let had = had.or_else(|| (has.is_some() && none(before)).then(Vec::new));
    let has = has.or_else(|| (had.is_some() && none(after)).then(Vec::new));
    match (had, has) {
        (Some(had), Some(has)) => {
            for (name, value) in &had {
                let path = join(path, name);
                match has.iter().find(|(other, _)| other == name) {
                    Some((_, other)) => compare(&path, value, other, lines),
                    None => lines.push(format!("- {path}{}", short(value))),
                }
            }
            let fresh = has.iter().filter(|(name, _)| !had.iter().any(|(other, _)| other == name));
            lines.extend(
                fresh.map(|(name, value)| format!("+ {}{}", join(path, name), short(value))),
            );
        }
        _ => {
            let (was, is) = (before.print(), after.print());
            if was != is {
                lines.push(format!("~ {path}: {} → {}", was.trim(), is.trim()));
            }
        }
    }
}

/// The parts with names: of a mapping, or of a list of mappings, which are known by their first value.
fn parts(value: &Yaml) -> Option<Vec<(String, &Yaml)>> {
    match value {
        Yaml::Map(entries) => {
            Some(entries.iter().map(|(name, value)| (name.clone(), value)).collect())
        }
        Yaml::List(items) => {
            let named = items.iter().map(|item| match item {
                Yaml::Map(entries) => {
                    Some((format!("[{}]", entries.first()?.1.print().trim()), item))
                }
                _ => None,
            });
            // A list of plain values is one value, unless it has none at all.
            named.collect::<Option<Vec<_>>>().filter(|named| !named.is_empty())
        }
        Yaml::Scalar(_) => None,
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, name) if name.starts_with('[') => format!("{path}{name}"),
        (path, name) => format!("{path}.{name}"),
    }
}

/// One value is told; a whole part is only named.
fn short(value: &Yaml) -> String {
    match value {
        Yaml::Map(_) => String::new(),
        Yaml::List(items) if items.iter().any(|item| matches!(item, Yaml::Map(_))) => String::new(),
        value => format!(": {}", value.print().trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(targets: &[&str], routes: &[(&str, u32)]) -> Yaml {
        let routes = routes.iter().map(|(path, status)| {
            Yaml::map([("path", Yaml::text(path)), ("status", Yaml::word(status))])
        });
        Yaml::map([("next", Yaml::texts(targets)), ("routes", Yaml::List(routes.collect()))])
    }

    fn file(sites: &[(&str, Yaml)]) -> Yaml {
        let sites = sites.iter().map(|(name, site)| ((*name).to_owned(), site.clone()));
        Yaml::map([("workers", Yaml::word(2)), ("sites", Yaml::named(sites))])
    }

    #[test]
    fn each_change_is_a_line_at_its_place() {
        let before =
            file(&[("a", site(&["one"], &[("/x", 1), ("/y", 2)])), ("gone", site(&["two"], &[]))]);
        let after = file(&[
            ("a", site(&["one", "two"], &[("/new", 3), ("/y", 4)])),
            ("b", site(&["two"], &[])),
        ]);
        assert_eq!(
            changes(&before, &after),
            [
                "~ sites.a.next: [one] → [one, two]",
                "- sites.a.routes[/x]",
                "~ sites.a.routes[/y].status: 2 → 4",
                "+ sites.a.routes[/new]",
                "- sites.gone",
                "+ sites.b",
            ]
        );
        assert_eq!(changes(&after, &after), [""; 0]);
        assert_eq!(changes(&Yaml::map([]), &Yaml::map([("a", Yaml::word(1))])), ["+ a: 1"]);
    }

    #[test]
    fn a_list_that_was_empty_is_told() {
        let (none, one) = (Yaml::List(Vec::new()), Yaml::texts(["x"]));
        let of = |list: &Yaml| Yaml::map([("trust", list.clone())]);
        assert_eq!(changes(&of(&none), &of(&one)), ["~ trust: [] → [x]"]);
        let (none, one) = (site(&["a"], &[]), site(&["a"], &[("/x", 1)]));
        assert_eq!(changes(&none, &one), ["+ routes[/x]"]);
        assert_eq!(changes(&one, &none), ["- routes[/x]"]);
    }
}
