//! Health, readiness, metrics and reload on the private listener.

use crate::harness::socketio::{hub_only, metric};
use crate::harness::{Edge, Origin, PLAIN, eventually, project, vestibule};

#[test]
fn live_ready_and_the_way_around() {
    let origin = Origin::text("ok");
    let edge = Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url()));
    assert_eq!(edge.admin("GET", "/health/live").text(), "ok\n");
    eventually("ready", || (edge.admin("GET", "/health/ready").status == 200).then_some(()));
    let answer = edge.admin("GET", "/nothing");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("/metrics"));
    assert!(vestibule(&["status"], &edge.folder).status.success());
    // None of it is public.
    assert_eq!(edge.get("/metrics").text(), "ok");
    assert_eq!(edge.get("/health/ready").text(), "ok");
}

#[test]
fn metrics_count_what_happened() {
    let origin = Origin::text("12345");
    let edge = Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url()));
    for _ in 0..3 {
        edge.get("/");
    }
    edge.connect().ask("GET", "/", &[("Host", "nowhere.example")], b"");
    let wanted = [
        "vestibule_requests_total{route=\"next\",class=\"2xx\"} 3",
        "vestibule_requests_total{route=\"edge\",class=\"4xx\"} 1",
        "vestibule_response_bytes_total{route=\"next\"} 15",
        "vestibule_request_duration_seconds_count{route=\"next\"} 3",
        "vestibule_connections_total{listener=\"http\"} 4",
        "vestibule_generation 1",
        "vestibule_faults_total{reason=\"no_site\"} 1",
    ];
    let page = edge.admin("GET", "/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in wanted {
        eventually(line, || edge.admin("GET", "/metrics").text().contains(line).then_some(()));
    }
}

#[test]
fn a_reload_is_asked_for_and_judged() {
    let origin = Origin::text("ok");
    let site = |host: &str| format!("{PLAIN}sites:\n  {host}:\n    next: {}\n", origin.url());
    let edge = Edge::start(&site("localhost"));
    edge.folder.write("proxy.yaml", &site("other.example"));
    let output = vestibule(&["reload"], &edge.folder);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("generation 2"), "{output:?}");
    assert_eq!(edge.get("/").status, 421);
    edge.folder.write("proxy.yaml", &format!("{}workrs: 3\n", site("localhost")));
    let output = vestibule(&["reload"], &edge.folder);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("the running configuration stays") && said.contains("\"workers\""),
        "{said}"
    );
    assert_eq!(edge.get("/").status, 421, "still the second one");
}

#[test]
fn over_tcp_a_reload_takes_the_token() {
    let origin = Origin::text("ok");
    let port = crate::harness::node::free_address();
    let listen = format!(
        "listen: {{ http: ['127.0.0.1:0'], https: [], admin: {{ address: '{port}', token: s3cret }} }}\n"
    );
    let edge = Edge::start(&format!("{listen}sites:\n  localhost:\n    next: {}\n", origin.url()));
    let ask = |headers: &[(&str, &str)]| {
        crate::harness::Client::connect(port).ask("POST", "/reload", headers, b"").status
    };
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&[("Authorization", "Bearer wrong")]), 401);
    assert_eq!(ask(&[("Authorization", "Bearer s3cret")]), 200);
    drop(edge);
}

#[test]
fn the_dashboard_asks_for_what_is_there() {
    let text = std::fs::read_to_string(project("examples/grafana.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let asked: Vec<_> = targets.filter_map(|target| target["expr"].as_str()).collect();
    // Nothing has happened yet, and every family is there.
    let edge = Edge::start(&hub_only(""));
    let page = edge.admin("GET", "/metrics").text();
    assert!(page.contains("\nvestibule_hub_dropped_total 0\n"), "{page}");
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: Vec<_> = families.filter_map(|line| line.split(' ').next()).collect();
    let named = |text: &str| -> Vec<String> {
        let parts = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let names = parts.filter(|part| part.starts_with("vestibule_"));
        names.map(|name| name.trim_end_matches("_bucket").to_owned()).collect()
    };
    for expression in &asked {
        assert!(!named(expression).is_empty(), "{expression}");
    }
    let shown: Vec<_> = asked.iter().flat_map(|expression| named(expression)).collect();
    let unknown: Vec<_> = shown.iter().filter(|name| !families.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "the dashboard asks for {unknown:?}");
}

#[test]
fn open_files_are_counted() {
    let edge = Edge::start(&hub_only(""));
    let open = || metric(&edge, "process_open_fds");
    let before = eventually("a count", || Some(open()).filter(|open| *open > 0));
    let held: Vec<_> = (0..50).map(|_| edge.connect()).collect();
    eventually("fifty more", || (open() >= before + 50).then_some(()));
    drop(held);
    eventually("as many as before", || (open() < before + 10).then_some(()));
}
