//! The Redis that nodes speak over: reached, new enough, and who else speaks there.

use crate::config::{Adapter, Config, Redis};
use crate::hub::{Neighbourhood, neighbourhood};

use super::machine::Process;
use super::{Finding, Note, Right, Wrong};

/// The first version that has what an adapter takes, and what that is.
fn least(adapter: Adapter) -> ((u32, u32), &'static str) {
    match adapter {
        Adapter::Classic => ((2, 8), "PUBSUB"),
        Adapter::Streams => ((5, 0), "XADD"),
        Adapter::Sharded => ((7, 0), "SSUBSCRIBE"),
    }
}

fn name(adapter: Adapter) -> &'static str {
    match adapter {
        Adapter::Classic => "classic",
        Adapter::Sharded => "sharded",
        Adapter::Streams => "streams",
    }
}

pub async fn look(words: &Redis, config: &Config, process: Option<&Process>) -> Vec<Finding> {
    let hub = config.hub.as_ref();
    let names: Vec<String> =
        hub.iter().flat_map(|hub| &hub.namespaces).map(|one| one.name.clone()).collect();
    match neighbourhood(words, &names).await {
        Ok(found) => judge(words, &found, process.is_some()),
        Err(error) => {
            let mend = "correct hub.redis.url, its username and password, or start it";
            vec![Wrong(format!("Redis: {error}"), mend.to_owned())]
        }
    }
}

fn judge(words: &Redis, found: &Neighbourhood, runs: bool) -> Vec<Finding> {
    let own = words.wire.adapter;
    let ((major, minor), takes) = least(own);
    let mut parts = found.version.split('.').map(|part| part.parse().unwrap_or(0));
    let is: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let mut findings = Vec::new();
    findings.push(if is < (major, minor) {
        Wrong(
            format!(
                "Redis is {}, and adapter: {} takes {takes} of {major}.{minor}",
                found.version,
                name(own)
            ),
            "update Redis, or write adapter: classic here and in the other servers".to_owned(),
        )
    } else {
        Right(format!("Redis is {}, as adapter: {} takes it", found.version, name(own)))
    });
    for (adapter, servers) in &found.strangers {
        findings.push(Wrong(
            format!(
                "{servers} servers speak {} under the key {}, and this one {}: they do not hear each other",
                name(*adapter), words.wire.key, name(own)
            ),
            format!("write adapter: {}, or give them this one's, or another key", name(*adapter)),
        ));
    }
    let (nodes, others) = (found.nodes, found.others);
    findings.push(Right(format!(
        "who hears {}: {nodes} nodes of this program, {others} other servers",
        words.wire.key
    )));
    if runs && nodes == 0 {
        findings.push(Note(
            "the process runs, but has no lease there".to_owned(),
            "it may run with another hub.redis: vestibule diff shows it".to_owned(),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_takes_a_redis_that_is_new_enough() {
        for (adapter, old, new) in [
            (Adapter::Classic, "2.6.17", "2.8.0"),
            (Adapter::Streams, "4.0.14", "5.0.0"),
            (Adapter::Sharded, "6.2.14", "7.0.15"),
        ] {
            let ((major, minor), _) = least(adapter);
            let reads = |version: &str| {
                let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
                (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
            };
            assert!(!reads(old) && reads(new), "{adapter:?}");
        }
    }
}
