//! The folders of `src` are layers, and no two modules name each other, not even in a
//! circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the top: each layer names only the layers below it, as in the picture of
/// `src/lib.rs`.
const LAYERS: [&str; 12] = [
    "program", "check", "setup", "daemon", "status", "unit", "keys", "logging", "process",
    "config", "report", "protocol",
];
/// The layers of `src/daemon/mod.rs`; any other module of `daemon` stands above them.
const LAYERS_OF_DAEMON: [&str; 7] =
    ["accept", "connection", "carrier", "limits", "relay", "net", "runtime"];

/// Modules, such as `daemon::relay`, each with the modules that it names.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            None if path.is_dir() => files(&path, found),
            Some(kind) if kind == "rs" => found.push(path),
            _ => {}
        }
    }
}

/// Turns `src/daemon/relay/mod.rs` into `daemon::relay`.
fn module(source: &Path, file: &Path) -> String {
    let path = file.strip_prefix(source).unwrap().with_extension("");
    let path = path.to_str().unwrap().replace('/', "::");
    path.trim_end_matches("::mod").to_owned()
}

/// The paths of the `use` declarations, one for each item.
fn uses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let begins = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        let start = begins.iter().find_map(|begin| line.trim_start().strip_prefix(begin));
        if let Some(start) = start {
            let at = line.len() - start.len();
            let declaration = rest[at..].split(';').next().unwrap();
            let words: Vec<_> = declaration.split_whitespace().collect();
            expand("", &words.join(" "), &mut found);
        }
        rest = after;
    }
    found
}

/// Expands `a::{b, c::d}` to `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let Some((path, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        found.push(format!("{prefix}{path}").trim_end_matches("::self").to_owned());
        return;
    };
    let group = group.trim().strip_suffix('}').unwrap();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in group.char_indices().chain([(group.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = group[start..at].trim();
                if !part.is_empty() {
                    expand(&format!("{prefix}{path}"), part, found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The modules that each module names, without tests. A name that the `mod.rs` of a
/// folder re-exports counts as the folder.
fn graph() -> Graph {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    let is_test = |file: &PathBuf| module(&source, file).split("::").any(|part| part == "tests");
    all.retain(|file| !is_test(file) && !file.ends_with("fuzzing.rs"));
    let modules: BTreeSet<_> = all.iter().map(|file| module(&source, file)).collect();
    let named = |file: &PathBuf| {
        let name = module(&source, file);
        let parent = name.rsplit_once("::").map_or("", |(parent, _)| parent);
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("\nmod tests {").next().unwrap();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let text = text.lines().filter(is_code).collect::<Vec<_>>().join("\n");
        let absolute = |path: String| match path.split_once("::") {
            Some(("super", rest)) => format!("{parent}::{rest}"),
            Some(("crate", rest)) => rest.to_owned(),
            Some(("self", rest)) => format!("{name}::{rest}"),
            // A module of this one, or another crate, which is not in the graph.
            _ => format!("{name}::{path}"),
        };
        let paths = uses(&text).into_iter().map(absolute);
        let named = paths.filter_map(|path| longest(&path, &modules));
        named.filter(|other| *other != name).collect()
    };
    all.iter().map(|file| (module(&source, file), named(file))).collect()
}

/// The longest prefix of a path that is a module.
fn longest(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
    ends.filter_map(|end| modules.get(&path[..end]).cloned()).last()
}

/// One circle, if there is any.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(
        graph: &Graph,
        at: &str,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|module| module == at) {
            return Some(path[start..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        path.push(at.to_owned());
        let found = graph.get(at)?.iter().find_map(|next| visit(graph, next, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| visit(graph, module, &mut Vec::new(), &mut done))
}

#[test]
fn no_module_names_one_that_names_it() {
    let graph = graph();
    assert!(graph.len() > 80, "{graph:?}");
    assert_eq!(circle(&graph), None);
    // The search would find a circle.
    let mut planted = graph;
    planted.get_mut("protocol::handshake").unwrap().insert("daemon::server".to_owned());
    assert!(circle(&planted).is_some());
}

#[test]
fn each_folder_names_only_what_stands_below_it() {
    let place = |module: &str| {
        let mut parts = module.split("::");
        let top = parts.next().unwrap();
        let below = if top == "daemon" { parts.next() } else { None };
        let of_daemon = LAYERS_OF_DAEMON.iter().position(|layer| Some(*layer) == below);
        let top = LAYERS.iter().position(|layer| *layer == top)?;
        Some((top, of_daemon.map_or(0, |place| place + 1)))
    };
    let mut checked = 0;
    for (module, named) in graph() {
        for other in named {
            if let (Some(above), Some(below)) = (place(&module), place(&other)) {
                assert!(above <= below, "{module} names {other}");
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn the_picture_in_lib_has_all_layers_in_their_order() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let picture = fs::read_to_string(source.join("lib.rs")).unwrap();
    let places: Vec<_> =
        LAYERS.iter().map(|layer| picture.find(&format!("\n//! {layer} ")).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
    let daemon = fs::read_to_string(source.join("daemon/mod.rs")).unwrap();
    assert!(LAYERS_OF_DAEMON.iter().all(|layer| daemon.contains(layer)));
}
