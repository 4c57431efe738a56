//! What the application does that an edge in front of it must know.

use std::time::Duration;

use crate::config::{Site, Upstream};

use super::speech::{Answer, Way};
use super::{Finding, Note, Right, Wrong};

/// What Next.js sends of its router's state may be larger than this.
const LARGE_HEAD: usize = 20 << 10;
/// Node closes connections that are idle for longer than it says a second early to nobody, so
/// ours are let go before; of less than that nothing is left.
const KEPT_MIN: Duration = Duration::from_secs(2);
/// How long is waited to see whether an idle connection stays.
const WATCHED_MAX: Duration = Duration::from_secs(10);

/// What there is to say of a server, and whether it answers at all.
pub async fn look(direct: &Way, site: &Site, next: &Upstream) -> (Vec<Finding>, bool) {
    let target = &direct.name;
    // As the edge asks: what it compresses itself it wants as it is.
    let accept = match site.compress.is_empty() {
        true => "accept-encoding: gzip, br\r\n",
        false => "accept-encoding: identity\r\n",
    };
    let mut answer = match direct.ask("GET /", accept, "").await {
        Ok(answer) => answer,
        Err(error) => {
            let mend = "start the application, or correct sites.….next";
            let wrong = Wrong(format!("{target} does not answer: {error}"), mend.into());
            return (vec![wrong], false);
        }
    };
    let mut findings = vec![Right(format!("{target} answers {}", answer.status))];
    findings.extend(compression(direct, site, &answer).await);
    findings.push(keep_alive(target, next, &mut answer).await);
    findings.push(head(direct, next).await);
    (findings, true)
}

async fn compression(direct: &Way, site: &Site, answer: &Answer) -> Option<Finding> {
    if site.compress.is_empty() || site.dev {
        return None;
    }
    let target = &direct.name;
    let mend = "write compress: false in next.config, and leave it to the edge";
    if answer.field("content-encoding").is_some() {
        return Some(Wrong(
            format!("{target} compresses what it answers, also if it is asked not to"),
            mend.to_owned(),
        ));
    }
    let asked = direct.ask("GET /", "accept-encoding: gzip\r\n", "").await.ok()?;
    Some(match asked.field("content-encoding") {
        Some(_) => Note(
            format!("{target} would compress; the edge asks it not to, and compresses by itself"),
            format!("clients that take nothing of the edge's get its gzip: {mend}"),
        ),
        None => Right(format!("{target} leaves compression to the edge")),
    })
}

async fn keep_alive(target: &str, next: &Upstream, answer: &mut Answer) -> Finding {
    const LONGER: &str =
        "next start --keepAliveTimeout 65000, or KEEP_ALIVE_TIMEOUT=65000 for server.js";
    if answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
        return Wrong(
            format!("{target} closes each connection"),
            "each request opens one more; let the application keep them alive".to_owned(),
        );
    }
    let keep = next.keep.lasts;
    let told = answer.field("keep-alive").and_then(|value| {
        let seconds = value.split(',').find_map(|word| word.trim().strip_prefix("timeout="));
        seconds?.parse().ok().map(Duration::from_secs)
    });
    match told {
        Some(told) if told < KEPT_MIN => Wrong(
            format!(
                "{target} closes connections that are idle for {told:?}, so hardly any is used twice"
            ),
            LONGER.to_owned(),
        ),
        Some(told) if told <= keep => Right(format!(
            "{target} keeps idle connections for {told:?}, which it says; they are let go a second before, though keep.for is {keep:?}"
        )),
        Some(told) => Right(format!(
            "{target} keeps idle connections for {told:?}, longer than keep.for ({keep:?})"
        )),
        None if keep > WATCHED_MAX => Note(
            format!("{target} does not say how long it keeps idle connections"),
            format!("requests may meet closing sockets if that is less than keep.for ({keep:?})"),
        ),
        None if answer.is_closed_within(keep).await => Wrong(
            format!(
                "{target} closes idle connections before keep.for ({keep:?}), and does not say so"
            ),
            format!("requests meet closing sockets: write a shorter keep.for, or {LONGER}"),
        ),
        None => {
            Right(format!("{target} keeps idle connections for keep.for ({keep:?}) and longer"))
        }
    }
}

async fn head(direct: &Way, next: &Upstream) -> Finding {
    const RAISE: &str = "NODE_OPTIONS=--max-http-header-size=65536";
    let (target, most) = (&direct.name, next.head);
    let takes = async |bytes: usize| {
        let state = "x".repeat(bytes.saturating_sub(direct.host.len() + 96));
        let asked = direct.ask("GET /", &format!("x-vestibule-doctor: {state}\r\n"), "").await;
        asked.is_ok_and(|answer| answer.status != 431)
    };
    if !takes(most).await {
        return Wrong(
            format!("{target} refuses a head of {most} bytes, which next.head lets by"),
            format!("start it with {RAISE}, or write a smaller next.head"),
        );
    }
    if most >= LARGE_HEAD {
        return Right(format!("{target} takes a head of {most} bytes"));
    }
    let more = match takes(LARGE_HEAD).await {
        true => "it takes more: write next.head: 64KiB".to_owned(),
        false => format!("start it with {RAISE}, and write next.head: 64KiB"),
    };
    Note(
        format!(
            "{target} takes a head of {most} bytes, and what is longer is answered 431 by the edge"
        ),
        format!("router state and cookies of a large application may need it; {more}"),
    )
}
