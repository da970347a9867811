//! Holds the code to its layers, as `lib.rs` tells them: one crate has no other wall.

use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of the library");
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
    let text = std::fs::read_to_string(path).expect("a file");
    let code = text.split("#[cfg(test)]").next().expect("code");
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn nobody_knows_whom_they_should_not() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib");
    let rules: [(&str, &[&str]); 9] = [
        ("outcome.rs", &["crate::"]),
        ("request.rs", &["crate::"]),
        ("reply.rs", &["crate::"]),
        ("protocol/facts.rs", &["crate::"]),
        (
            "protocol",
            &[
                "tokio",
                "std::io",
                "std::net",
                "std::time",
                "tracing",
                "reqwest",
                "crate::config",
                "crate::http",
                "crate::observe",
                "crate::program",
                "crate::serve",
                "crate::session",
                "crate::table",
            ],
        ),
        (
            "http",
            &[
                "crate::protocol::policy",
                "crate::protocol::socketmap",
                "crate::protocol::tcp_lookup",
                "crate::session",
                "crate::serve::listen",
                "crate::serve::socket",
            ],
        ),
        ("http/answer.rs", &["tokio", "reqwest", "tracing"]),
        ("http/call.rs", &["tokio", "tracing"]),
        (
            "config",
            &[
                "tokio",
                "crate::http",
                "crate::serve",
                "crate::session",
                "crate::table",
            ],
        ),
    ];
    for (place, forbidden) in rules {
        let place = library.join(place);
        let files = if place.is_dir() {
            files(&place)
        } else {
            vec![place]
        };
        assert!(!files.is_empty());
        for file in files {
            for word in forbidden {
                assert!(
                    !code(&file).contains(word),
                    "{} knows {word}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn http_stays_on_its_side() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib");
    for file in files(&library) {
        let is_allowed = ["http", "config", "program/startup.rs"]
            .iter()
            .any(|place| file.starts_with(library.join(place)));
        assert!(
            is_allowed || !code(&file).contains("reqwest"),
            "{}",
            file.display()
        );
    }
}
