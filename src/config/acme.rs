//! `tls.acme` as written → where certificates are asked for, and how; pure.

use super::field::Field;
use super::section::Section;
use super::{Acme, AcmeChallenge, Eab, HostPattern, Listen, Site, Tls};

/// What is written, if anything is.
pub fn read(tls: &Section<'_>) -> Option<Acme> {
    tls.written("acme")?;
    let section = tls.section("acme");
    if section.written("email").is_none() {
        section.refuse_lack("has no email; write where the authority can reach you");
    }
    let challenges = [("http-01", AcmeChallenge::Http), ("tls-alpn-01", AcmeChallenge::TlsAlpn)];
    Some(Acme {
        email: section.get("email", email).unwrap_or_default(),
        directory: section.value("directory", directory),
        challenge: section.choice("challenge", &challenges).unwrap_or_default(),
        ca: section.field("ca", |field| field.read_path()).flatten(),
        eab: section.written("eab").map(|_| eab(&section.section("eab"))),
    })
}

/// Says what is in the way of every certificate.
pub fn check(tls: &Section<'_>, words: &Tls, listen: &Listen, sites: &[Site]) {
    let Some(acme) = &words.acme else { return };
    let section = tls.section("acme");
    match acme.challenge {
        AcmeChallenge::Http if listen.http.is_empty() => section.refuse(
            "asks for the challenge http-01, and listen.http is []; write challenge: tls-alpn-01",
        ),
        AcmeChallenge::TlsAlpn if listen.https.is_empty() => section.refuse(
            "asks for the challenge tls-alpn-01, and listen.https is []; write challenge: http-01",
        ),
        _ => (),
    }
    if !sites.iter().any(|site| site.names().any(is_public)) {
        section.refuse("finds no site with a public name; write one, as app.example.com");
    }
}

/// Whether an authority could give a certificate for this host: a name, and not one of this
/// machine's or network's own.
pub fn is_public(host: &HostPattern) -> bool {
    let name = host.as_str();
    let own = [".localhost", ".local", ".internal", ".home.arpa"];
    // The last label of an address is a number.
    let is_address = name.starts_with('[')
        || name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.is_exact()
        && name.contains('.')
        && !is_address
        && !own.iter().any(|suffix| name.ends_with(suffix))
}

fn eab(section: &Section<'_>) -> Eab {
    for name in ["id", "key"] {
        if section.written(name).is_none() {
            section.refuse_lack(format!("has no {name}; the authority gave you both"));
        }
    }
    let id = section.get("id", |text| Ok(text.to_owned())).unwrap_or_default();
    Eab { id, key: section.written("key").and_then(Field::read_secret) }
}

fn email(text: &str) -> Result<String, String> {
    let is_address = text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && !text.contains([' ', ',', ':', '?'])
    });
    if is_address {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no address; write ops@example.com"))
    }
}

/// A known authority's word, or the URL of a directory (RFC 8555 §7.1.1).
fn directory(text: &str) -> Result<String, String> {
    match text {
        "letsencrypt" => Ok(PRODUCTION.to_owned()),
        "letsencrypt-staging" => Ok(STAGING.to_owned()),
        url if url.starts_with("https://") && url.len() > "https://".len() => Ok(url.to_owned()),
        _ => Err(format!(
            "{text:?} is no directory; write letsencrypt, letsencrypt-staging or https://…"
        )),
    }
}

const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_names_get_certificates() {
        for (host, expected) in [
            ("app.example.com", true),
            ("a.example", true),
            ("*.example.com", false),
            ("*", false),
            ("localhost", false),
            ("app.localhost", false),
            ("printer.local", false),
            ("10.0.0.1", false),
            ("[::1]", false),
        ] {
            let host = HostPattern::parse(host).expect("a host");
            assert_eq!(is_public(&host), expected, "{}", host.as_str());
        }
    }

    #[test]
    fn addresses_and_directories_have_a_form() {
        for wrong in
            ["", "ops", "@example.com", "ops@", "ops@example", "a b@example.com", "a@b.c,d@e.f"]
        {
            assert!(email(wrong).is_err(), "{wrong}");
        }
        assert!(email("ops@example.com").is_ok());
        for wrong in ["", "http://a", "https://", "lets-encrypt"] {
            assert!(directory(wrong).is_err(), "{wrong}");
        }
        assert_eq!(directory("letsencrypt-staging").as_deref(), Ok(STAGING));
    }
}
