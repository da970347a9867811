//! Holds the library to its layers: nothing imports upwards, and no two files import each other.
//! One crate has no other wall.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of the library, the lowest first: each imports what stands before it, and `lib.rs` is
/// above all. A folder is one layer; inside it only circles are forbidden.
const LAYERS: [&str; 15] = [
    "outcome", "request", "reply", "sync", "protocol", "config", "observe", "serve", "http",
    "limits", "store", "table", "session", "program", "lib",
];

/// What a place must not name, whatever its layer.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    ("outcome", &["crate::"]),
    ("request", &["crate::"]),
    ("reply", &["crate::"]),
    // Every rule of a grammar is a function of bytes.
    (
        "protocol",
        &[
            "tokio",
            "std::io",
            "std::net",
            "std::time",
            "tracing",
            "reqwest",
        ],
    ),
    // The table HTTP -> outcome and the composition of calls are pure.
    ("http::answer", &["tokio", "reqwest", "tracing"]),
    ("http::login", &["tokio", "reqwest", "tracing"]),
    ("http::call", &["tokio", "tracing"]),
];

/// The protocols, each of which only its own folder and its binary know.
const PROTOCOLS: [&str; 5] = [
    "socketmap::",
    "tcp_lookup::",
    "policy::Policy",
    "dict::Dict",
    "sasl::Sasl",
];

/// The modules that know the HTTP client.
const CLIENT: [&str; 2] = ["http", "config"];

/// The files of the library by the names of their modules.
fn modules() -> BTreeMap<String, String> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib");
    let name = |path: &Path| {
        let path = path.strip_prefix(&library).expect("a file of the library");
        let parts: Vec<_> = path.with_extension("").iter().map(text).collect();
        parts.join("::").trim_end_matches("::mod").to_owned()
    };
    let modules: BTreeMap<_, _> = files(&library)
        .into_iter()
        .map(|path| (name(&path), code(&path)))
        .collect();
    assert!(modules.len() > 30, "only {} modules", modules.len());
    modules
}

fn text(part: &std::ffi::OsStr) -> String {
    part.to_str().expect("a name").to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the library");
    entries
        .flat_map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// The code of a file without its comments and its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a file");
    let code = text.split("#[cfg(test)]\nmod tests").next().expect("code");
    let lines = code
        .lines()
        .map(|line| line.split(" //").next().unwrap_or_default())
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that the code of a module imports or names.
fn imports(module: &str, code: &str, modules: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    let mut statements = code.split_inclusive([';', '{', '}']);
    while let Some(statement) = statements.next() {
        let Some(tree) = imported(statement) else {
            rest.push_str(statement);
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.ends_with(';') {
            tree.push_str(statements.next().expect("the end of an import"));
        }
        expand("", tree.trim_end_matches(';'), &mut paths);
    }
    let names: BTreeMap<_, _> = paths
        .iter()
        .filter_map(|(path, name)| Some((name.clone(), resolve(module, path, modules)?)))
        .collect();
    let mut found: BTreeSet<_> = names.values().cloned().collect();
    for path in named_paths(&rest) {
        let (first, after) = path.split_once("::").unwrap_or((&path, ""));
        let path = match names.get(first) {
            Some(known) => format!("crate::{known}::{after}"),
            None => path.clone(),
        };
        found.extend(resolve(module, &path, modules));
    }
    found.remove(module);
    found
}

/// What a statement imports, if it is an import.
fn imported(statement: &str) -> Option<&str> {
    let words = statement.trim_start();
    let visibility = words.strip_prefix("pub").map(str::trim_start);
    let words = match visibility {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest,
        None => words,
    };
    let tree = words.strip_prefix("use ")?;
    // A message may have the word as well.
    let mut head = tree.split(['{', ';']).next()?.chars();
    let is_path = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_:*".contains(c);
    head.all(is_path).then_some(tree)
}

/// Every path in code, as `a::b::c`.
fn named_paths(code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c| !is_path(c))
        .filter(|word| word.contains("::"))
        .map(|word| word.trim_matches(':').to_owned())
        .collect()
}

/// Takes a tree of imports apart: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    let Some((start, inner)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = format!("{prefix}{path}");
        let path = path.trim_end_matches("::self").to_owned();
        let last = path.rsplit("::").next().expect("a name");
        let name = if alias.is_empty() { last } else { alias.trim() };
        paths.push((path.clone(), name.to_owned()));
        return;
    };
    let inner = inner.trim_end().strip_suffix('}').expect("a closed tree");
    let prefix = format!("{prefix}{start}");
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[begin..at].trim().is_empty() {
                    expand(&prefix, &inner[begin..at], paths);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// The module of ours that a path leads to, if it is one of ours: items are not told from modules,
/// so the longest part that is a module counts. What the root itself exports is the root's.
fn resolve(module: &str, path: &str, modules: &BTreeSet<&str>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
    let own: Vec<&str> = module.split("::").filter(|part| *part != "lib").collect();
    let (full, least) = match *parts.first()? {
        "crate" => (parts[1..].to_vec(), 0),
        "self" => ([own, parts[1..].to_vec()].concat(), 0),
        "super" => {
            let supers = parts.iter().take_while(|part| **part == "super").count();
            let above = own.len().saturating_sub(supers);
            ([&own[..above], &parts[supers..]].concat(), 0)
        }
        // A child of this module, or no path of ours.
        _ => {
            let least = own.len() + 1;
            ([own, parts].concat(), least)
        }
    };
    let found = (1..=full.len()).rev().filter(|length| *length >= least);
    let found = found
        .map(|length| full[..length].join("::"))
        .find(|name| modules.contains(name.as_str()));
    found.or_else(|| (least == 0).then(|| "lib".to_owned()))
}

fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules();
    let names: BTreeSet<_> = modules.keys().map(String::as_str).collect();
    modules
        .iter()
        .map(|(name, code)| (name.clone(), imports(name, code, &names)))
        .collect()
}

/// A circle of modules that import each other, if there is one.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left: BTreeSet<&String> = graph.keys().collect();
    // A module that imports no remaining module is in no circle.
    while let Some(free) = left
        .iter()
        .copied()
        .find(|name| !graph[*name].iter().any(|to| left.contains(to)))
    {
        left.remove(free);
    }
    let mut at = *left.first()?;
    let mut way = Vec::new();
    while !way.contains(at) {
        way.push(at.clone());
        at = graph[at].iter().find(|to| left.contains(to))?;
    }
    let begin = way.iter().position(|name| name == at)?;
    Some(way.split_off(begin))
}

fn layer(module: &str) -> usize {
    let top = module.split("::").next().expect("a name");
    let layer = LAYERS.iter().position(|layer| *layer == top);
    layer.unwrap_or_else(|| panic!("{module} is in no layer"))
}

#[test]
fn nothing_imports_upwards() {
    for (module, imports) in graph() {
        for import in imports {
            assert!(
                layer(&import) <= layer(&module),
                "{module} imports {import}"
            );
        }
    }
}

#[test]
fn no_modules_import_each_other() {
    assert_eq!(circle(&graph()), None);
}

#[test]
fn what_a_place_must_not_name_is_not_in_it() {
    for (module, code) in modules() {
        let is_in = |place: &str| module == place || module.starts_with(&format!("{place}::"));
        for (_, words) in FORBIDDEN.iter().filter(|(place, _)| is_in(place)) {
            for word in *words {
                assert!(!code.contains(word), "{module} names {word}");
            }
        }
        let names_one = PROTOCOLS.iter().find(|name| code.contains(**name));
        assert!(
            is_in("protocol") || names_one.is_none(),
            "{module} names {names_one:?}"
        );
        let may_know = CLIENT.iter().any(|place| is_in(place));
        assert!(
            may_know || !code.contains("reqwest"),
            "{module} names reqwest"
        );
    }
}

#[test]
fn the_map_names_every_module_once_in_reading_order() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib/lib.rs");
    let text = fs::read_to_string(path).expect("the map");
    let order = text.split("Read in this order:").nth(1).expect("an order");
    let order = order.split("\n//!\n").next().expect("a paragraph");
    let named: Vec<_> = order
        .split("[`")
        .skip(1)
        .filter_map(|rest| rest.split("`]").next())
        .collect();
    assert_eq!(named, LAYERS[..LAYERS.len() - 1]);
    let declared = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib/lib.rs"));
    for module in &LAYERS[..LAYERS.len() - 1] {
        assert_eq!(
            declared.matches(&format!("mod {module};")).count(),
            1,
            "{module}"
        );
    }
}

#[test]
fn circles_and_trees_of_imports_are_seen() {
    let names = BTreeSet::from(["a", "a::b", "a::c", "d", "d::e"]);
    let of = |module: &str, code: &str| {
        imports(module, code, &names)
            .into_iter()
            .collect::<Vec<_>>()
    };
    let code = "use std::io;\nuse super::c::{self, Thing};\nuse crate::{a, d::{e::{X, Y}, Z}};\n";
    assert_eq!(of("a::b", code), ["a", "a::c", "d", "d::e"]);
    for (code, expected) in [
        ("use crate::run;", "lib"),
        ("fn f() { crate::run() }", "lib"),
        ("fn f() { b::y() }", "a::b"),
        ("fn f() { self::b::y() }", "a::b"),
        ("use crate::d;\nfn f() { d::e::x() }", "d::e"),
        ("use crate::d as up;\nfn f() { up::e::x() }", "d::e"),
        ("pub(in crate::a) use crate::{d::e::X};", "d::e"),
        ("use std::io; use crate::d::e::X;", "d::e"),
        (
            "fn f() {}\nmod inner;\npub(crate) use crate::d::e::X as Y;",
            "d::e",
        ),
    ] {
        assert!(
            of("a", code).contains(&expected.to_owned()),
            "{code}: {:?}",
            of("a", code)
        );
    }
    assert!(of("a", "use std::d::e;\nfn f() { std::b::c() }").is_empty());
    assert_eq!(
        of("d", "pub use e::Name;\nfn f() -> crate::a::b::T {}"),
        ["a::b", "d::e"]
    );
    let graph = |edges: &[(&str, &[&str])]| {
        let owned = |(from, to): &(&str, &[&str])| {
            (
                (*from).to_owned(),
                to.iter().map(|to| (*to).to_owned()).collect(),
            )
        };
        edges.iter().map(owned).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(
        circle(&graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])),
        None
    );
    let found = circle(&graph(&[
        ("a", &["b"]),
        ("b", &["c"]),
        ("c", &["d"]),
        ("d", &["b"]),
    ]));
    assert_eq!(found.expect("a circle"), ["b", "c", "d"]);
}
