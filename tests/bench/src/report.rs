//! The figures side by side: table, Markdown, JSON, chart.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::chart;
use crate::figure::{Figure, Goal, Words};
use vestibule_bench::server::Kind;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Every value that was measured, by figure and server.
#[derive(Default)]
pub struct Report(BTreeMap<Figure, Vec<(Kind, f64)>>);

#[derive(Serialize)]
struct Comparison {
    case: &'static str,
    unit: &'static str,
    ours: f64,
    peer: &'static str,
    peer_value: Option<f64>,
    ratio: Option<f64>,
}

impl Report {
    pub fn add(&mut self, figure: Figure, kind: Kind, value: f64) {
        self.0.entry(figure).or_default().push((kind, value));
    }

    /// The median of the rounds.
    pub fn value(&self, figure: Figure, kind: Kind) -> Option<f64> {
        let all = self.0.get(&figure)?.iter();
        let mut values: Vec<f64> =
            all.filter(|(of, _)| *of == kind).map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn ratio(&self, figure: Figure, peer: Kind) -> Option<f64> {
        Some(self.value(figure, Kind::Vestibule)? / self.value(figure, peer)?)
    }

    /// One line for each figure that was measured.
    pub fn table(&self) -> String {
        let mut rows = vec![
            [
                "",
                "unit",
                "Vestibule",
                "Node",
                "socketioxide",
                "÷ Node",
                "÷ socketioxide",
                "goal",
                "",
            ]
            .map(str::to_owned),
        ];
        let measured = Figure::ALL.into_iter().filter(|figure| self.0.contains_key(figure));
        rows.extend(measured.map(|figure| self.row(figure)));
        let widths: Vec<usize> = (0..9)
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _infallible = match column {
                    0 => write!(text, "| {cell:<width$} |"),
                    _ => write!(text, " {cell:>width$} |"),
                };
            }
            text.push('\n');
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let (begin, end) = if column == 0 { ("|", "-") } else { ("", ":") };
                    let dashes = "-".repeat(width + 1);
                    let _infallible = write!(text, "{begin}{dashes}{end}|");
                }
                text.push('\n');
            }
        }
        text
    }

    /// How many are not what they must be.
    pub fn missed(&self) -> usize {
        let measured = Figure::ALL.into_iter().filter(|figure| self.0.contains_key(figure));
        measured.filter(|figure| self.row(*figure).last().is_some_and(|mark| mark == "✗")).count()
    }

    fn row(&self, figure: Figure) -> [String; 9] {
        let Words { title, unit, goal, .. } = figure.words();
        let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), three_digits);
        let (goal, reached) = match goal {
            Goal::AtMost(most) => {
                let ours = self.value(figure, Kind::Vestibule);
                (format!("≤ {most}"), ours.map(|ours| ours <= most))
            }
            Goal::OfNode(most) => {
                let ratio = self.ratio(figure, Kind::Node);
                (format!("≤ {most:.2} × Node"), ratio.map(|ratio| ratio <= most))
            }
            Goal::None => (String::new(), None),
        };
        let reached = reached.map_or("", |reached| if reached { "✓" } else { "✗" });
        [
            title.to_owned(),
            unit.to_owned(),
            show(self.value(figure, Kind::Vestibule)),
            show(self.value(figure, Kind::Node)),
            show(self.value(figure, Kind::Socketioxide)),
            show(self.ratio(figure, Kind::Node)),
            show(self.ratio(figure, Kind::Socketioxide)),
            goal,
            reached.to_owned(),
        ]
    }

    fn comparisons(&self) -> Vec<Comparison> {
        let mut list = Vec::new();
        for figure in Figure::ALL {
            let Some(ours) = self.value(figure, Kind::Vestibule) else { continue };
            let Words { case, unit, .. } = figure.words();
            for peer in [Kind::Node, Kind::Socketioxide] {
                let peer_value = self.value(figure, peer);
                let ratio = self.ratio(figure, peer);
                list.push(Comparison { case, unit, ours, peer: peer.name(), peer_value, ratio });
            }
        }
        list
    }

    /// Writes hub.md, hub.json and hub.svg.
    pub fn write(&self, folder: &Path, how: &str) -> Outcome<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("hub.md"), format!("{}\n{how}\n", self.table()))?;
        let json = serde_json::to_string_pretty(&self.comparisons())?;
        fs::write(folder.join("hub.json"), json + "\n")?;
        fs::write(folder.join("hub.svg"), chart::draw(self))?;
        Ok(())
    }
}

/// As many digits as the measurement is worth.
pub fn three_digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
