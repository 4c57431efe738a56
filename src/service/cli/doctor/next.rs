//! What a Next.js application must be seen to do: take actions from its own pages, and hot reload
//! where it is developed.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::HeaderMap;
use http::header::HOST;
use tokio::time::timeout;

use crate::config::Site;
use crate::exchange::{Client, Peer, Scheme, headers};

use super::speech::{Answer, Way};
use super::{Finding, Right, Wrong};

/// An action that no application has.
const NO_ACTION: &str = "00ffffffffffffffffffffffffffffffffffffffff";
/// A socket for hot reload opens at once.
const OPENED_WITHIN: Duration = Duration::from_secs(2);

/// Asks for an action as a page of the site does. Next.js compares where the page is from with the
/// host that it is told, and does not say to the browser which of them it did not like.
pub async fn actions(direct: &Way, edge: Option<&Way>, site: &Site) -> Vec<Finding> {
    let (target, host) = (&direct.name, &direct.host);
    // Another kind of application, or one without actions, says nothing of it.
    let Ok(true) = asks(direct, None).await.map(|answer| is_unknown(&answer)) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut origins = vec![host.clone()];
    origins.extend(site.action_origins.iter().map(|origin| origin.replace('*', "any")));
    for origin in origins {
        let Ok(own) = asks(direct, Some(&format!("https://{origin}"))).await else { continue };
        findings.push(if is_unknown(&own) {
            Right(format!("{target} takes Server Actions from pages of {origin}"))
        } else {
            Wrong(
                format!("{target} answers {} to Server Actions from pages of {origin}", own.status),
                format!("write serverActions: {{ allowedOrigins: ['{origin}'] }} under experimental in next.config"),
            )
        });
    }
    let Some(edge) = edge else { return findings };
    if let Ok(through) = asks(edge, Some(&edge.origin)).await {
        findings.push(if is_unknown(&through) {
            Right(format!("Server Actions from {} come to it with Origin and Host alike", edge.origin))
        } else {
            Wrong(
                format!("Server Actions from {} are answered {} through the edge", edge.origin, through.status),
                format!("vestibule explain POST {0}/ -H 'origin: {0}' -H 'next-action: {NO_ACTION}' says what they meet", edge.origin),
            )
        });
    }
    findings
}

async fn asks(way: &Way, origin: Option<&str>) -> io::Result<Answer> {
    let origin = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
    let forwarded = if way.is_direct { forwarded(&way.host) } else { String::new() };
    let fields = format!(
        "{forwarded}{origin}next-action: {NO_ACTION}\r\naccept: text/x-component\r\ncontent-type: text/plain;charset=UTF-8\r\ncontent-length: 2\r\nconnection: close\r\n"
    );
    way.ask("POST /", &fields, "[]").await
}

/// What the edge would tell the application of who asks; through the edge it writes its own.
fn forwarded(host: &str) -> String {
    let (host, address) = (host.to_owned(), IpAddr::from(Ipv4Addr::LOCALHOST));
    let client = Client { address, host, port: 443, scheme: Scheme::Https, chain: None };
    let peer = Peer { address: (address, 0).into(), local_port: 443, tls: None };
    let mut fields = HeaderMap::new();
    headers::set_forwarded(&mut fields, &client, &peer);
    fields.remove(HOST);
    let told = fields.iter().filter_map(|(name, value)| Some((name, value.to_str().ok()?)));
    told.map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

fn is_unknown(answer: &Answer) -> bool {
    answer.field("x-nextjs-action-not-found").is_some()
}

/// A development server, and only that, is a site with `dev: true`.
pub async fn hot_reload(direct: &Way, edge: Option<&Way>, site: &Site) -> Option<Finding> {
    let target = &direct.name;
    let path = opened(direct).await;
    Some(match (site.dev, path) {
        (true, Some(path)) => {
            let Some(edge) = edge else {
                return Some(Right(format!("{target} reloads pages that change, over {path}")));
            };
            match opened(edge).await {
                Some(_) => Right(format!("hot reload comes through the edge, over {path}")),
                None => Wrong(
                    format!("{target} opens {path} for hot reload, but not through the edge"),
                    format!("write allowedDevOrigins: ['{}'] in next.config", direct.host),
                ),
            }
        }
        (true, None) => Wrong(
            format!("{target} opens no socket for hot reload, and the site is dev: true"),
            "start it with next dev, or remove dev: true: it lifts limits".to_owned(),
        ),
        (false, Some(_)) => Wrong(
            format!("{target} is a development server: it shows its source to everybody"),
            "start it with next build and next start, or write dev: true for the site".to_owned(),
        ),
        (false, None) => return None,
    })
}

/// The path at which a socket for hot reload opens: of Next.js 16, or of those before.
async fn opened(way: &Way) -> Option<&'static str> {
    let fields = format!(
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\norigin: {}\r\n",
        way.origin
    );
    for path in ["/_next/hmr", "/_next/webpack-hmr"] {
        // One that runs in production answers nothing at all to what it has not.
        let line = format!("GET {path}?id=doctor");
        let asked = timeout(OPENED_WITHIN, way.ask(&line, &fields, "")).await;
        if asked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 101)) {
            return Some(path);
        }
    }
    None
}
