//! The figures as bars, readable on light and dark pages.

use std::fmt::Write as _;

use crate::figure::Figure;
use crate::report::{Report, three_digits};
use vestibule_bench::server::Kind;

const WIDTH: f64 = 760.0;
const LABEL: f64 = 104.0;
/// Leaves room for the value behind the longest bar.
const BAR: f64 = 500.0;
const LINE: f64 = 18.0;
const TITLE: f64 = 22.0;
const GAP: f64 = 14.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; fill: #1f2328 }
.label { text-anchor: end }
.vestibule { fill: #0969da }
.peer { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 }
  .title { fill: #f0f6fc }
  .vestibule { fill: #4493f8 }
  .peer { fill: #59636e }
}";

pub fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 4.0;
    for figure in Figure::CHARTED {
        let order = [Kind::Vestibule, Kind::Socketioxide, Kind::Node];
        let bars: Vec<(Kind, f64)> = order
            .into_iter()
            .filter_map(|kind| report.value(figure, kind).map(|value| (kind, value)))
            .collect();
        if !bars.is_empty() {
            y = group(&mut body, figure, &bars, report.value(figure, Kind::Node), y) + GAP;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" \
         height=\"{y}\" role=\"img\">\n\
         <title>The hub beside Node's socket.io and socketioxide; shorter is better</title>\n\
         <style>\n{STYLE}\n</style>\n{body}</svg>\n"
    )
}

/// One figure's title and bars from `y` on; returns where it ends.
fn group(
    body: &mut String,
    figure: Figure,
    bars: &[(Kind, f64)],
    node: Option<f64>,
    mut y: f64,
) -> f64 {
    let words = figure.words();
    let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let _infallible = writeln!(
        body,
        "<text class=\"title\" x=\"{LABEL}\" y=\"{:.0}\">{} ({})</text>",
        y + 13.0,
        words.title,
        words.unit
    );
    y += TITLE;
    for (kind, value) in bars {
        let length = (BAR * value / most).max(2.0);
        let class = if *kind == Kind::Vestibule { "vestibule" } else { "peer" };
        let of_node = match node {
            Some(node) if *kind != Kind::Node => format!(" · {:.2} × Node", value / node),
            _ => String::new(),
        };
        let _infallible = writeln!(
            body,
            "<text class=\"label\" x=\"{:.0}\" y=\"{:.0}\">{}</text>\
             <rect class=\"{class}\" x=\"{LABEL}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"14\" \
             rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{}{of_node}</text>",
            LABEL - 8.0,
            y + 11.0,
            label(*kind),
            LABEL + length + 8.0,
            y + 11.0,
            three_digits(*value)
        );
        y += LINE;
    }
    y
}

fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Node => "Node",
        Kind::Socketioxide => "socketioxide",
        Kind::Vestibule => "Vestibule",
    }
}
