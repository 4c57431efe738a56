//! `hub.admin_ui` as written → `AdminUi`; pure.

use std::ops::RangeInclusive;

use super::field::{Field, Named};
use super::hub::namespace_name;
use super::section::Section;
use super::units::Secret;

/// Where the page of Socket.IO's Admin UI connects.
#[derive(Debug, Clone)]
pub struct AdminUi {
    pub namespace: String,
    pub door: AdminDoor,
}

/// Who may see it, and do what.
#[derive(Debug, Clone)]
pub struct AdminDoor {
    pub username: String,
    /// A hash of bcrypt.
    pub password: Secret,
    /// Only seen, nothing done.
    pub readonly: bool,
    /// Signs what the page shows instead of the password when it comes again; each process has one of
    /// its own otherwise.
    pub secret: Option<Secret>,
}

/// A weaker hash is guessed too soon, a stronger one takes seconds.
const COSTS: RangeInclusive<u8> = 10..=14;

pub fn read(section: &Section<'_>, namespaces: &[Named<'_>]) -> AdminUi {
    let namespace: String = section.value("namespace", |name| {
        namespace_name(name)?;
        if namespaces.iter().any(|known| known.name == name) {
            return Err(format!("{name} is one of namespaces; the page needs its own"));
        }
        Ok(name.to_owned())
    });
    section.choice("mode", &[("production", ())]);
    for key in ["username", "password"] {
        if section.written(key).is_none() {
            section.refuse_lack(format!("has no {key}, so nobody could connect; write one"));
        }
    }
    let password = section.field("password", |field| {
        let secret = field.read_secret()?;
        check_hash(secret.expose(), COSTS).map_err(|what| field.refuse(what)).ok()?;
        Some(secret)
    });
    let door = AdminDoor {
        username: section.value("username", |text| Ok(text.to_owned())),
        password: password.flatten().unwrap_or_else(|| Secret::new(String::new(), None)),
        readonly: section.flag("readonly"),
        secret: section.written("secret").and_then(Field::read_secret),
    };
    AdminUi { namespace, door }
}

impl AdminDoor {
    /// Whether whoever comes in by the one would come in by the other.
    pub fn opens_like(&self, other: &Self) -> bool {
        self.username == other.username && self.password.matches(other.password.expose().as_bytes())
    }
}

/// `$2b$12$` and 53 characters. The text itself never prints.
pub fn check_hash(hash: &str, costs: RangeInclusive<u8>) -> Result<(), String> {
    const MAKE: &str = "make one: htpasswd -nBC 12 admin";
    let known = ["$2a$", "$2b$", "$2y$"].iter().find_map(|start| hash.strip_prefix(start));
    let parts = known.and_then(|rest| rest.split_once('$'));
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    let is_whole = |(cost, rest): &(&str, &str)| {
        cost.len() == 2 && rest.len() == 53 && rest.bytes().all(letter)
    };
    let Some((cost, _)) = parts.filter(is_whole) else {
        return Err(format!("is no hash of bcrypt; {MAKE}"));
    };
    match cost.parse::<u8>() {
        Ok(cost) if costs.contains(&cost) => Ok(()),
        _ => {
            let (least, most) = costs.into_inner();
            Err(format!("is a hash of cost {cost}; {least} to {most} can be written; {MAKE}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_known_by_their_form() {
        let rest = "./".repeat(26) + "a";
        for start in ["$2a$10$", "$2b$12$", "$2y$14$"] {
            assert_eq!(check_hash(&format!("{start}{rest}"), COSTS), Ok(()), "{start}");
        }
        for hash in ["changeit", "$2b$12$", "$1$abc$def", "$2b$1$a", "$2b$\u{e9}$"] {
            assert!(check_hash(hash, COSTS).is_err_and(|what| what.contains("no hash")), "{hash}");
        }
        for start in ["$2b$05$", "$2b$31$", "$2b$xx$"] {
            let weak = check_hash(&format!("{start}{rest}"), COSTS);
            assert!(weak.is_err_and(|what| what.contains("10 to 14")), "{start}");
        }
    }
}
