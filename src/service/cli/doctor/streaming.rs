//! Whether a page that streams does so through the edge: pieces arrive when they are sent.

use std::time::Duration;

use super::speech::{Answer, Way};
use super::{Finding, Note, Right, Wrong};

/// What comes within this came at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How a page came by two ways.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// There is nothing to see of how it streams.
    AtOnce,
    Streams,
    /// It streams by itself, and comes at once here.
    Gathered,
}

/// From the first piece of the body to the last.
fn spread(pieces: &[Duration]) -> Duration {
    let ends = pieces.first().zip(pieces.last());
    ends.map_or(Duration::ZERO, |(first, last)| last.saturating_sub(*first))
}

fn judge(direct: &[Duration], edge: &[Duration]) -> Verdict {
    match spread(direct) {
        short if short < AT_ONCE => Verdict::AtOnce,
        long if spread(edge) < long / 2 => Verdict::Gathered,
        _ => Verdict::Streams,
    }
}

/// Asks for the page without the edge, through it, and through it for a client that takes
/// compression.
pub async fn look(direct: &Way, edge: Option<&Way>, path: &str) -> Vec<Finding> {
    const PLAIN: &str = "accept-encoding: identity\r\n";
    const PACKED: &str = "accept-encoding: gzip, br, zstd\r\n";
    let target = &direct.name;
    let own = match direct.listen(path, PLAIN).await {
        Ok(own) => own,
        Err(error) => {
            let mend = "see the application's log";
            return vec![Wrong(format!("{target} does not send {path}: {error}"), mend.into())];
        }
    };
    if judge(&own.pieces, &[]) == Verdict::AtOnce {
        return vec![at_once(target, path, &own)];
    }
    let Some(edge) = edge else { return Vec::new() };
    let mut findings = Vec::new();
    for (accept, how) in [(PLAIN, ""), (PACKED, ", compressed")] {
        let Ok(through) = edge.listen(path, accept).await else { continue };
        // A page that is refused here, as where one must log in, says nothing of streams.
        if through.status != own.status {
            findings.push(Note(
                format!(
                    "{path} is answered {} through the edge, and {} by {target}",
                    through.status, own.status
                ),
                format!("vestibule explain GET {}{path} says why", edge.origin),
            ));
            break;
        }
        let (first, last) = (told(through.pieces.first()), told(through.pieces.last()));
        findings.push(match judge(&own.pieces, &through.pieces) {
            Verdict::Gathered => Wrong(
                format!(
                    "{path} streams from {target} over {:?}, and comes at once through the edge{how}, after {last}",
                    spread(&own.pieces)
                ),
                "see which program stands between the two; compress: [] for the site shows whether it is compression".to_owned(),
            ),
            _ => Right(format!("{path} streams through the edge{how}: from {first} to {last}")),
        });
    }
    findings
}

fn at_once(target: &str, path: &str, own: &Answer) -> Finding {
    let what = format!("{path} comes from {target} at once, after {}", told(own.pieces.last()));
    if path == "/" {
        let more = "nothing to see of streaming; name a page that streams: --stream PATH";
        return Note(what, more.to_owned());
    }
    let mend = "the page sends nothing before it has all: what waits belongs into <Suspense>, its first part needs no await";
    Wrong(what, mend.to_owned())
}

fn told(time: Option<&Duration>) -> String {
    format!("{} ms", time.map_or(0, Duration::as_millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_compared_by_when_they_came() {
        let times = |all: &[u64]| -> Vec<_> {
            all.iter().map(|time| Duration::from_millis(*time)).collect()
        };
        for (direct, edge, verdict) in [
            (&[][..], &[][..], Verdict::AtOnce),
            (&[5], &[900], Verdict::AtOnce),
            (&[5, 90], &[5, 90], Verdict::AtOnce),
            (&[5, 505, 1005], &[6, 510, 1010], Verdict::Streams),
            (&[5, 505, 1005], &[1007, 1008], Verdict::Gathered),
            (&[5, 505, 1005], &[1007], Verdict::Gathered),
            // A second time it was faster.
            (&[5, 505, 1005], &[3, 700], Verdict::Streams),
        ] {
            assert_eq!(judge(&times(direct), &times(edge)), verdict, "{direct:?} {edge:?}");
        }
    }
}
