use std::path::PathBuf;

use super::*;

fn project(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// Every word of a text that is the name of one of our metrics, endings taken off.
fn named(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("highwater_") || word.starts_with("process_"));
    let base = |word| {
        let endings = ["_total", "_bucket", "_count", "_sum", "_info"];
        endings.iter().find_map(|ending| str::strip_suffix(word, ending)).unwrap_or(word)
    };
    ours.map(base).collect()
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist() {
    let metrics = Metrics::new(&StoreMetrics::default());
    let board: serde_json::Value = serde_json::from_str(&project("deploy/grafana/highwater.json")).unwrap();
    let mut asked = 0;
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let names = named(query);
            assert!(!names.is_empty(), "{query}");
            for name in names {
                assert!(metrics.names().contains(&name), "{name} in {query}");
                asked += 1;
            }
        }
    }
    assert!(asked > 15);
}

#[test]
fn the_manual_lists_every_metric_and_no_other() {
    let metrics = Metrics::new(&StoreMetrics::default());
    let manual = project("docs/OPERATIONS.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut listed: Vec<&str> = rows.flat_map(named).collect();
    let mut known = metrics.names().to_vec();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[test]
fn two_servers_in_one_process_do_not_mix() {
    let (one, other) = (Metrics::new(&StoreMetrics::default()), Metrics::new(&StoreMetrics::default()));
    one.answered(Route::Sync, 200, Duration::from_millis(2), (10, 0));
    assert!(one.render().contains(r#"requests_total{route="sync",protocol="native",status="200"} 1"#));
    assert!(!other.render().contains("requests_total"));
}
