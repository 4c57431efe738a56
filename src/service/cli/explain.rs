//! `vestibule explain`: what a request would meet, by the configuration alone.

use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use serde_json::{Value, json};

use crate::config;
use crate::exchange::{Body, Peer, Request, TlsFacts};
use crate::router::{Added, Explanation, Removed};
use crate::service::{Stop, compile, resident};

use super::{File, say};

/// The request that is asked about.
#[derive(Debug, Args)]
pub struct Words {
    #[command(flatten)]
    pub file: File,
    /// GET, POST, …
    method: Method,
    /// As a client asks for it: <https://app.example.com/path?query>
    url: Uri,
    /// A header of the request, as 'name: value'; again for more.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The address that it comes from.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: IpAddr,
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub fn run(words: &Words) -> Result<(), Stop> {
    let (request, peer) = asked(words)?;
    let explained = explain(&words.file.config, request, &peer)?;
    if words.json {
        return say(&format!("{:#}", as_json(&explained)));
    }
    say(&format!("{} {}\n{}", words.method, words.url, as_text(&explained)))
}

fn explain(file: &Path, request: Request, peer: &Peer) -> Result<Explanation, Stop> {
    let config = config::load(file)?;
    let (resident, _inboxes) = resident(&config)?;
    let snapshot = compile(config, 1, &resident, file)?;
    let mut told = snapshot.router().explain(request, peer, snapshot.body_rate());
    if snapshot.traced().is_some() && told.upstream.is_some() {
        told.traced();
    }
    Ok(told)
}

fn asked(words: &Words) -> Result<(Request, Peer), Stop> {
    let wrong = |what: String| Stop::Asked(what);
    let scheme = words.url.scheme();
    let authority = words.url.authority();
    let (Some(scheme), Some(authority)) = (scheme, authority) else {
        return Err(wrong(format!("{} is no URL; write https://app.example.com/", words.url)));
    };
    let secure = *scheme == Scheme::HTTPS;
    if !secure && *scheme != Scheme::HTTP {
        return Err(wrong(format!("{scheme} is not spoken here; write https:// or http://")));
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = words.method.clone();
    let target = words.url.path_and_query().cloned();
    *request.uri_mut() = target.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    let host = HeaderValue::from_str(authority.as_str());
    request.headers_mut().extend(host.ok().map(|host| (header::HOST, host)));
    for line in &words.headers {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok();
        let value = HeaderValue::from_str(value.trim()).ok();
        let (Some(name), Some(value)) = (name, value) else {
            return Err(wrong(format!("{line:?} is no header; write 'name: value'")));
        };
        request.headers_mut().append(name, value);
    }
    let local_port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tls = secure.then(|| TlsFacts {
        version: "TLSv1.3",
        http2: false,
        name: Some(authority.host().to_ascii_lowercase()),
        authorities: None,
    });
    Ok((request, Peer { address: (words.from, 0).into(), local_port, tls }))
}

fn as_json(told: &Explanation) -> Value {
    let passed = told.passed.iter().map(|(route, why)| json!({ "route": route, "why": why }));
    let added = told.added.iter();
    let added = added.map(|one| json!({ "name": one.name, "value": one.value, "why": one.why }));
    let removed = told.removed.iter().map(|one| json!({ "name": one.name, "why": one.why }));
    let captured = told.captured.iter().map(|(name, part)| (name.clone(), json!(part)));
    let limits = told.limits.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    json!({
        "site": told.site,
        "route": told.route,
        "captured": Value::Object(captured.collect()),
        "passed": passed.collect::<Vec<_>>(),
        "answer": told.answer,
        "status": told.status,
        "reason": told.reason,
        "location": told.location,
        "door": told.door,
        "upstream": told.upstream,
        "target": told.target,
        "request": { "added": added.collect::<Vec<_>>(), "removed": removed.collect::<Vec<_>>() },
        "response": told.response,
        "limits": Value::Object(limits.collect()),
    })
}

fn as_text(told: &Explanation) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut line = |name: &'static str, text: Option<&str>| {
        lines.extend(text.map(|text| (name, text.to_owned())));
    };
    line("site", told.site.as_deref().or(Some("none")));
    line("route", told.route.as_deref());
    for (name, part) in &told.captured {
        let name = if name == "*" { name.clone() } else { format!(":{name}") };
        line("captured", Some(&format!("{name} = {part}")));
    }
    for (route, why) in &told.passed {
        line("passed", Some(&format!("{route}: {why}")));
    }
    let status = told.status.map(|status| format!(", {status}")).unwrap_or_default();
    let reason = told.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    line("door", told.door.as_deref());
    line("answer", Some(&format!("{}{status}{reason}", told.answer)));
    line("location", told.location.as_deref());
    line("upstream", told.upstream.as_deref());
    line("target", told.target.as_deref());
    for Added { name, value, why } in &told.added {
        line("request", Some(&format!("+ {name}: {value}   # {why}")));
    }
    for Removed { name, why } in &told.removed {
        line("request", Some(&format!("- {name}   # {why}")));
    }
    for change in &told.response {
        line("response", Some(change));
    }
    for (name, value) in &told.limits {
        line("limit", Some(&format!("{name}: {value}")));
    }
    lines.iter().map(|(name, text)| format!("{name:<9} {text}\n")).collect()
}
