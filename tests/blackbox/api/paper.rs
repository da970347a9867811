//! The document itself.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::Document;

/// Every value of this member in a document.
fn members<'d>(document: &'d Value, wanted: &str, found: &mut Vec<&'d Value>) {
    match document {
        Value::Object(object) => {
            for (name, value) in object {
                if name == wanted {
                    found.push(value);
                }
                members(value, wanted, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|v| members(v, wanted, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_openapi() {
    let document = Document::read();
    let schema = include_str!("openapi.schema.json");
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let errors: Vec<_> = validator
        .iter_errors(document.root())
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// Every reference leads to a component, and every component is used.
#[test]
fn references_and_components_match() {
    let document = Document::read();
    let mut references = Vec::new();
    members(document.root(), "$ref", &mut references);
    let used: BTreeSet<_> = references
        .iter()
        .map(|reference| reference.as_str().expect("text").to_owned())
        .collect();
    let mut there = BTreeSet::new();
    let components = document.root()["components"].as_object();
    for (kind, of_kind) in components.expect("components") {
        if kind != "securitySchemes" {
            let names = of_kind.as_object().expect("components").keys();
            there.extend(names.map(|name| format!("#/components/{kind}/{name}")));
        }
    }
    assert_eq!(used, there);

    let mut tags = Vec::new();
    members(document.root(), "security", &mut tags);
    let schemes = &document.root()["components"]["securitySchemes"];
    for scheme in tags
        .into_iter()
        .flat_map(|one| one.as_array().expect("a list"))
    {
        let mut names = scheme.as_object().expect("an object").keys();
        assert!(names.all(|name| schemes.get(name).is_some()), "{scheme}");
    }
}

/// An operation has a name of its own, a tag that is explained, and the placeholders of its path as
/// parameters.
#[test]
fn operations_are_whole() {
    let document = Document::read();
    let tags = document.root()["tags"].as_array().expect("tags");
    let tags: BTreeSet<_> = tags
        .iter()
        .map(|tag| tag["name"].clone().to_string())
        .collect();
    let (mut names, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (path, method, operation) in document.operations() {
        assert!(
            names.insert(operation["operationId"].to_string()),
            "{path} {method}"
        );
        let own = operation["tags"].as_array().expect("tags");
        used.extend(own.iter().map(Value::to_string));
        let placeholders: BTreeSet<_> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let parameters: BTreeSet<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|parameter| document.resolved(parameter))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(parameters, placeholders, "{path} {method}");
    }
    assert_eq!(used, tags);
}

#[test]
fn examples_fit_their_schemas() {
    let document = Document::read();
    let mut contents = Vec::new();
    members(document.root(), "content", &mut contents);
    let mut held = 0;
    for (kind, content) in contents
        .into_iter()
        .flat_map(|one| one.as_object().expect("content"))
    {
        for (name, example) in content["examples"].as_object().into_iter().flatten() {
            let fit = document.fits(&content["schema"], &example["value"]);
            assert_eq!(fit, Ok(()), "{kind}: {name}");
            held += 1;
        }
    }
    assert!(held > 4, "only {held} examples");
}

/// Its version is that of the programs.
#[test]
fn the_document_is_of_this_version() {
    let document = Document::read();
    assert_eq!(
        document.root()["info"]["version"],
        env!("CARGO_PKG_VERSION")
    );
}
