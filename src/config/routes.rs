//! What a site and its routes do themselves, as written → words; pure.

use std::time::Duration;

use http::HeaderName;

use super::edge::{
    Addresses, Build, Cors, ErrorPage, Files, HeaderRules, Hsts, Maintenance, Page, Public,
    Rewrite, Share, When,
};
use super::field::Field;
use super::glob::Glob;
use super::section::Section;
use super::units::{Cidr, deadline, duration};
use super::{HostPattern, PathPattern};

/// What must hold besides the path.
pub fn when(route: &Section<'_>, site: &HostPattern) -> When {
    let hosts = route.written("host").filter(|hosts| !hosts.is_empty_list());
    if let Some(hosts) = hosts.filter(|_| site.is_exact()) {
        hosts.refuse_key(format!("has no meaning here: the site is {} alone", site.as_str()));
    }
    let section = route.section("when");
    let globs = |key: &str, name: &dyn Fn(&str) -> Result<String, String>| {
        pairs(&section, key, name, &Glob::parse)
    };
    When {
        hosts: route.list("host", HostPattern::parse),
        methods: route.list("method", method),
        headers: globs("headers", &header_name),
        cookies: globs("cookies", &token),
        query: globs("query", &|name| Ok(name.to_owned())),
    }
}

/// The entries of a mapping, each name once however it is written.
fn pairs<T>(
    section: &Section<'_>,
    key: &str,
    name: &dyn Fn(&str) -> Result<String, String>,
    value: &dyn Fn(&str) -> Result<T, String>,
) -> Vec<(String, T)> {
    let mut pairs: Vec<(String, T)> = Vec::new();
    for named in section.names(key) {
        let name = name(named.name).map_err(|what| named.field.refuse_key(what)).ok();
        let (Some(name), Some(value)) = (name, named.field.read(value)) else { continue };
        if pairs.iter().any(|(known, _)| *known == name) {
            named.field.refuse_key(format!("{name} is written twice"));
        } else {
            pairs.push((name, value));
        }
    }
    pairs
}

/// In capitals, as methods are.
fn method(text: &str) -> Result<String, String> {
    let is_method = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if is_method { Ok(text.to_owned()) } else { Err(wrong_method(text)) }
}

fn wrong_method(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    if upper != text && method(&upper).is_ok() {
        return format!("{text:?} is sent in capitals; write {upper}");
    }
    format!("{text:?} is no method; write GET, POST, …")
}

fn header_name(text: &str) -> Result<String, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    let name = name.map_err(|_error| format!("{text:?} is no header's name; write x-beta"))?;
    Ok(name.as_str().to_owned())
}

fn token(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(letter) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no cookie's name; write letters and digits"))
    }
}

pub fn share(section: &Section<'_>) -> Share {
    if section.written("of").is_none() {
        section.refuse_lack("has no of; write 10%");
    }
    Share {
        of: section.value("of", percent),
        cookie: section.value("cookie", token),
        lasts: section.value("for", deadline),
    }
}

/// As parts of ten thousand: `10%`, `0.5%`.
pub fn percent(text: &str) -> Result<u16, String> {
    let wrong = || format!("{text:?} is no part of all; write 10% or 0.5%");
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 2 || whole.len() > 3 {
        return Err(wrong());
    }
    let hundredths = format!("{part:0<2}").parse::<u16>().map_err(|_error| wrong())?;
    let whole = whole.parse::<u16>().map_err(|_error| wrong())?;
    Some(whole * 100 + hundredths).filter(|of| *of <= 10_000).ok_or_else(wrong)
}

/// As `percent` reads it.
pub fn show_percent(of: u16) -> String {
    match of % 100 {
        0 => format!("{}%", of / 100),
        part if part % 10 == 0 => format!("{}.{}%", of / 100, part / 10),
        part => format!("{}.{part:02}%", of / 100),
    }
}

pub fn rewrite(section: &Section<'_>, path: Option<&PathPattern>) -> Rewrite {
    Rewrite {
        strip: section.get("strip", |text| strip(text, path)),
        prefix: section.get("prefix", prefix),
    }
}

fn strip(text: &str, path: Option<&PathPattern>) -> Result<String, String> {
    let prefix = text.strip_suffix('/').unwrap_or(text);
    if prefix.is_empty() {
        return Err(format!("{text:?} removes nothing; write /prefix"));
    }
    match path {
        Some(path) if path.literal().is_empty() => {
            Err(format!("{text:?} is not what every path begins with; write path: {prefix}/*"))
        }
        Some(path) if !super::sites::is_below(&path.literal(), prefix) => {
            Err(format!("{text:?} is not what {path} begins with; write {}", path.literal()))
        }
        _ => Ok(prefix.to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let prefix = text.strip_suffix('/').unwrap_or(text);
    match super::path::canonical(prefix) {
        Ok(same) if same == prefix && prefix.starts_with('/') => Ok(prefix.to_owned()),
        _ => Err(format!("{text:?} is no path to put before another; write /v2")),
    }
}

pub fn addresses(section: &Section<'_>) -> Addresses {
    Addresses { allow: section.list("allow", Cidr::parse), deny: section.list("deny", Cidr::parse) }
}

/// What frames a message, or is of one connection: a rule about it would break the message.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];

pub fn header_rules(section: &Section<'_>) -> HeaderRules {
    let name = |text: &str| {
        let name = header_name(text)?;
        if FRAMING.contains(&name.as_str()) {
            return Err(format!("{name} frames the message, and is written by the edge alone"));
        }
        Ok(name)
    };
    let pairs = |key: &str| pairs(section, key, &name, &header_value);
    HeaderRules { remove: section.list("remove", name), set: pairs("set"), add: pairs("add") }
}

fn header_value(text: &str) -> Result<String, String> {
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && text.trim() == text {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no header's value: ASCII in one line, without spaces around it"))
}

/// Browsers are built with the names of sites that promise at least so much.
const PRELOAD_MIN: Duration = Duration::from_secs(365 * 86_400);

pub fn hsts(section: &Section<'_>) -> Hsts {
    let hsts = Hsts {
        max_age: section.value("max_age", duration),
        subdomains: section.flag("subdomains"),
        preload: section.flag("preload"),
    };
    if hsts.preload && (!hsts.subdomains || hsts.max_age < PRELOAD_MIN) {
        section.refuse("preload takes subdomains: true and a max_age of 1y");
    }
    hsts
}

pub fn cors(section: &Section<'_>) -> Cors {
    if section.written("origins").is_none_or(Field::is_empty_list) {
        section.refuse_lack("has no origins; write https://app.example.com, or \"*\" for any");
    }
    let names = |text: &str| if text == "*" { Ok("*".to_owned()) } else { header_name(text) };
    let cors = Cors {
        origins: section.list("origins", origin),
        methods: section.list("methods", method),
        headers: section.list("headers", names),
        expose: section.list("expose", names),
        credentials: section.flag("credentials"),
        max_age: section.value("max_age", duration),
    };
    if cors.credentials && cors.origins.iter().any(|origin| origin == "*") {
        section.refuse("any page could read what a visitor may: credentials takes named origins");
    }
    cors
}

/// As browsers send it; one label may be a star.
fn origin(text: &str) -> Result<String, String> {
    let starred = text.replacen("://*.", "://any.", 1);
    let is_pattern = starred != text;
    let origin = super::hub::origin(&starred)?;
    Ok(if is_pattern { origin.replacen("://any.", "://*.", 1) } else { origin })
}

pub fn maintenance(section: &Section<'_>) -> Option<Maintenance> {
    if section.written("file").is_none() {
        section.refuse_lack("has no file; write the path of one that switches it on");
    }
    let file = section.written("file").and_then(Field::read_path);
    let page = section.written("page").and_then(page);
    let allow = section.list("allow", Cidr::parse);
    let retry = section.value("retry", deadline);
    Some(Maintenance { file: file?, page, allow, retry })
}

fn page(field: &Field<'_>) -> Option<Page> {
    let path = field.read_path()?;
    let html = field.contents_of(&path)?;
    Some(Page { path, html: html.into() })
}

pub fn errors(section: &Section<'_>) -> Vec<ErrorPage> {
    let errors = section.names("errors").into_iter().filter_map(|named| {
        let status = status(named.name).map_err(|what| named.field.refuse_key(what)).ok();
        let page = page(&named.field);
        Some(ErrorPage { status: status?, page: page? })
    });
    errors.collect()
}

/// A status of an error, or the hundred that `4xx` and `5xx` stand for.
pub fn status(text: &str) -> Result<u16, String> {
    match text {
        "4xx" => Ok(4),
        "5xx" => Ok(5),
        text => Some(text)
            .filter(|text| text.len() == 3 && !text.starts_with('+'))
            .and_then(|text| text.parse().ok())
            .filter(|status| (400..600).contains(status))
            .ok_or_else(|| format!("{text:?} is no status of an error; write 502 or 5xx")),
    }
}

pub fn files(section: &Section<'_>) -> Option<Files> {
    if section.written("root").is_none() {
        section.refuse_lack("has no root; write the path of a folder");
    }
    let root = section.written("root").and_then(Field::read_path);
    let files = Files {
        index: section.list("index", file_name),
        fallback: section.get("fallback", file_name),
        cache: section.value("cache", duration),
        immutable: section.flag("immutable"),
        root: root?,
    };
    if files.immutable && files.cache.is_zero() {
        section.refuse("immutable takes a cache that lasts; write cache: 1y");
    }
    Some(files)
}

/// A file of the folder itself.
fn file_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\\', '\0']);
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no file's name; write index.html"))
    }
}

pub fn build(section: &Section<'_>) -> Option<Build> {
    if section.written("path").is_none() {
        section.refuse_lack("has no path; write that of the .next folder");
    }
    let words = [("auto", Public::Auto), ("always", Public::Always), ("never", Public::Never)];
    let path = section.written("path").and_then(Field::read_path);
    let public = section.choice("public", &words).unwrap_or(Public::Auto);
    let kept = section.written("keep").map(Field::items).unwrap_or_default();
    let keep = kept.iter().filter_map(Field::read_path).collect();
    Some(Build { path: path?, public, keep })
}

/// As Next.js has them: a host, with a star for one label or two for any number.
pub fn action_origin(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let name = lower.trim_start_matches("**.").trim_start_matches("*.");
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if name.is_empty() || !name.bytes().all(letter) {
        return Err(format!("{text:?} is no host; write app.example.com or *.example.com"));
    }
    Ok(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_all() {
        for (text, of) in [("10%", 1000), ("0.5%", 50), ("100%", 10_000), ("0%", 0), ("1.25%", 125)]
        {
            assert_eq!(percent(text), Ok(of), "{text}");
            assert_eq!(percent(&show_percent(of)), Ok(of), "{text}");
        }
        for text in ["10", "%", "101%", "-1%", "1.234%", ".5%", "5.%", "1e1%", "99999%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
