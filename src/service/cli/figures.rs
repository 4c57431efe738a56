//! What `GET /metrics` says, as figures.

use std::collections::BTreeMap;

/// One page of metrics: by family, then by labels as they are written.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, BTreeMap<String, f64>>);

impl Figures {
    pub fn parse(page: &str) -> Self {
        let mut families: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').to_owned();
            families.entry(name.to_owned()).or_default().insert(labels, value);
        }
        Self(families)
    }

    /// The sum of a family, or what its only series says.
    pub fn total(&self, family: &str) -> f64 {
        self.0.get(family).into_iter().flat_map(BTreeMap::values).sum()
    }

    pub fn has(&self, family: &str) -> bool {
        self.0.contains_key(family)
    }

    /// The sums of a family by the values of one label.
    pub fn by(&self, family: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.0.get(family).into_iter().flatten() {
            let Some(word) = value_of(labels, label) else { continue };
            *sums.entry(word.to_owned()).or_default() += value;
        }
        sums
    }

    /// How many more there are than in an earlier page, by one label.
    pub fn more(&self, before: &Self, family: &str, label: &str) -> BTreeMap<String, f64> {
        let had = before.by(family, label);
        let mut more = self.by(family, label);
        for (word, value) in &mut more {
            *value = (*value - had.get(word).copied().unwrap_or_default()).max(0.0);
        }
        more
    }

    /// The bound below which this part of what a histogram counted since `before` lies, in seconds;
    /// with `route` of that route alone. `None` if nothing was.
    pub fn quantile(
        &self,
        before: &Self,
        family: &str,
        route: Option<&str>,
        part: f64,
    ) -> Option<f64> {
        let bucket = format!("{family}_bucket");
        let of = |page: &Self| -> Vec<(f64, f64)> {
            let mut sums: Vec<(f64, f64)> = Vec::new();
            for (labels, value) in page.0.get(&bucket).into_iter().flatten() {
                if route.is_some_and(|route| value_of(labels, "route") != Some(route)) {
                    continue;
                }
                let bound = value_of(labels, "le").unwrap_or_default();
                let bound = bound.parse().unwrap_or(f64::INFINITY);
                match sums.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, sum)) => *sum += value,
                    None => sums.push((bound, *value)),
                }
            }
            sums.sort_by(|one, other| one.0.total_cmp(&other.0));
            sums
        };
        let had = of(before);
        let mut more = of(self);
        for (bound, value) in &mut more {
            let earlier = had.iter().find(|(known, _)| known == bound);
            *value -= earlier.map_or(0.0, |(_, value)| *value);
        }
        let all = more.last()?.1;
        let found = more.iter().find(|(_, value)| all > 0.0 && *value >= all * part);
        found.map(|(bound, _)| *bound)
    }
}

/// A label's value; what is escaped in it stays so.
fn value_of<'a>(labels: &'a str, label: &str) -> Option<&'a str> {
    labels.split("\",").find_map(|pair| {
        let (name, value) = pair.split_once("=\"")?;
        (name == label).then(|| value.trim_end_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP x y\n\
        requests_total{route=\"a\",class=\"2xx\"} 3\n\
        requests_total{route=\"b,\",class=\"2xx\"} 4\n\
        up 1\n\
        took_bucket{route=\"a\",le=\"0.001\"} 5\n\
        took_bucket{route=\"a\",le=\"0.1\"} 9\n\
        took_bucket{route=\"a\",le=\"+Inf\"} 10\n";

    #[test]
    fn a_page_is_read_by_labels() {
        let (none, page) = (Figures::default(), Figures::parse(PAGE));
        assert_eq!((page.total("requests_total"), page.total("up")), (7.0, 1.0));
        assert_eq!(page.by("requests_total", "route").get("b,"), Some(&4.0));
        assert_eq!(page.more(&none, "requests_total", "class").get("2xx"), Some(&7.0));
        assert_eq!(page.more(&page, "requests_total", "class").get("2xx"), Some(&0.0));
        assert_eq!(page.quantile(&none, "took", None, 0.5), Some(0.001));
        assert_eq!(page.quantile(&none, "took", Some("a"), 0.9), Some(0.1));
        assert_eq!(page.quantile(&none, "took", None, 0.99), Some(f64::INFINITY));
        assert_eq!(page.quantile(&page, "took", None, 0.5), None);
        assert_eq!(page.quantile(&none, "took", Some("z"), 0.5), None);
    }
}
