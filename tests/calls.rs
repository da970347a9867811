//! Requests into HTTP calls: each value escaped for where it stands, or no call at all.

use postgate::Program;
use postgate::backend::call::compose;
use postgate::config::{Mode, Table, load};
use postgate::outcome::Outcome;
use postgate::request::{Attributes, Request};

/// Makes the one table of a configuration.
fn table(program: Program, keys: &str) -> Table {
    let path = std::env::temp_dir().join(format!(
        "postgate-calls-{}-{:?}.toml",
        std::process::id(),
        std::thread::current().id()
    ));
    let text = format!("[{}.users]\n{keys}\n", program.name());
    std::fs::write(&path, text).expect("a file");
    let (config, report) = load(&path, Mode::Serve);
    std::fs::remove_file(&path).expect("the file");
    let config = config.unwrap_or_else(|| panic!("{keys}: {:?}", report.problems()));
    config.tables.into_iter().next().expect("a table")
}

fn lookup(key: &[u8]) -> Request {
    Request::Lookup {
        map: None,
        key: key.to_vec().into(),
    }
}

fn policy(attributes: &[(&str, &[u8])]) -> Request {
    let pair =
        |(name, value): &(&str, &[u8])| (name.as_bytes().to_vec().into(), value.to_vec().into());
    Request::Policy(Attributes(attributes.iter().map(pair).collect()))
}

/// The URL and the form of a call, or what is said without one.
fn call(table: &Table, request: &Request) -> String {
    match compose(table, request) {
        Ok(call) => match call.form {
            Some(form) => format!("{} {form}", call.url),
            None => call.url.to_string(),
        },
        Err(Outcome::NotFound) => "not found".to_owned(),
        Err(Outcome::Temporary(failure)) => format!("temporary: {}", failure.reason),
        Err(outcome) => format!("{outcome:?}"),
    }
}

#[test]
fn a_key_in_the_query_is_asked_whatever_it_is() {
    let table = table(Program::TcpLookup, r#"target = "http://h/t?x=1""#);
    for (key, expected) in [
        (&b"a@b.c"[..], "http://h/t?x=1&key=a%40b.c"),
        (b"", "http://h/t?x=1&key="),
        (b"..", "http://h/t?x=1&key=.."),
        (
            b"a b+c&d=e%41#f/g?h",
            "http://h/t?x=1&key=a%20b%2Bc%26d%3De%2541%23f%2Fg%3Fh",
        ),
        (
            b"\"<>\\^`{|}'",
            "http://h/t?x=1&key=%22%3C%3E%5C%5E%60%7B%7C%7D%27",
        ),
        (b"\r\n\t\0", "http://h/t?x=1&key=%0D%0A%09%00"),
        (
            "\u{fc}\u{20ac}".as_bytes(),
            "http://h/t?x=1&key=%C3%BC%E2%82%AC",
        ),
        (b"\xff\xfe", "http://h/t?x=1&key=%FF%FE"),
        (b"-._~", "http://h/t?x=1&key=-._~"),
    ] {
        assert_eq!(call(&table, &lookup(key)), expected);
    }
}

#[test]
fn a_key_in_the_path_cannot_leave_its_segment() {
    let table = table(Program::TcpLookup, r#"target = "http://h/a/{key}/z""#);
    for (key, expected) in [
        (&b"a@b.c"[..], "http://h/a/a%40b.c/z"),
        (b"../../admin", "http://h/a/..%2F..%2Fadmin/z"),
        (b"..\\..\\admin", "http://h/a/..%5C..%5Cadmin/z"),
        (b"%2e%2e", "http://h/a/%252e%252e/z"),
        (b"?x=1#y", "http://h/a/%3Fx%3D1%23y/z"),
        (b"...", "http://h/a/.../z"),
        (b"a/b", "http://h/a/a%2Fb/z"),
        (b"\xff", "http://h/a/%FF/z"),
        (b"", "not found"),
        (b".", "not found"),
        (b"..", "not found"),
    ] {
        assert_eq!(call(&table, &lookup(key)), expected);
    }
}

#[test]
fn a_key_is_split_at_its_last_at() {
    let table = table(
        Program::TcpLookup,
        r#"target = "http://h/{domain}/{local}""#,
    );
    for (key, expected) in [
        ("a@b", "http://h/b/a"),
        ("a@b@c", "http://h/c/a%40b"),
        ("\"a@b\"@c", "http://h/c/%22a%40b%22"),
        ("a", "not found"),
        ("a@", "not found"),
        ("@b", "not found"),
        ("", "not found"),
        ("..@b", "not found"),
        ("a@..", "not found"),
    ] {
        assert_eq!(call(&table, &lookup(key.as_bytes())), expected, "{key}");
    }
}

#[test]
fn a_local_part_without_a_domain_is_the_whole_key() {
    let table = table(Program::TcpLookup, r#"target = "http://h/{local}""#);
    assert_eq!(call(&table, &lookup(b"a")), "http://h/a");
    assert_eq!(call(&table, &lookup(b"a@b")), "http://h/a");
    assert_eq!(call(&table, &lookup(b"@b")), "not found");
}

#[test]
fn parts_of_a_segment_are_judged_together() {
    let table = table(Program::TcpLookup, r#"target = "http://h/.{key}/x{key}""#);
    assert_eq!(call(&table, &lookup(b".")), "not found");
    assert_eq!(call(&table, &lookup(b"")), "not found");
    assert_eq!(call(&table, &lookup(b"a")), "http://h/.a/xa");
}

#[test]
fn what_postfix_asks_on_its_own_account_is_not_passed_on() {
    let plain = table(Program::TcpLookup, r#"target = "http://h/t""#);
    let special = table(
        Program::TcpLookup,
        "target = \"http://h/t\"\nspecial-keys = true",
    );
    for (key, expected) in [
        ("*", "http://h/t?key=%2A"),
        ("<>", "http://h/t?key=%3C%3E"),
        ("\"<>\"", "http://h/t?key=%22%3C%3E%22"),
    ] {
        assert_eq!(call(&plain, &lookup(key.as_bytes())), "not found", "{key}");
        assert_eq!(call(&special, &lookup(key.as_bytes())), expected);
    }
    assert_eq!(call(&plain, &lookup(b"**")), "http://h/t?key=%2A%2A");
}

#[test]
fn a_map_is_asked_by_the_name_it_has() {
    let any = table(Program::Socketmap, r#"target = "http://h""#);
    let request = Request::Lookup {
        map: Some(b"a/b&c"[..].into()),
        key: b"k"[..].into(),
    };
    assert_eq!(call(&any, &request), "http://h/?name=a%2Fb%26c&key=k");
    let in_path = table(Program::Socketmap, r#"target = "http://h/{name}/{key}""#);
    assert_eq!(call(&in_path, &request), "http://h/a%2Fb%26c/k");
}

#[test]
fn a_query_is_sent_in_the_order_written() {
    let keys =
        "target = \"http://h/t?\"\nquery = { z = \"{key}\", a = \"x y&{name}\", \"b c\" = \"\" }";
    let table = table(Program::TcpLookup, keys);
    assert_eq!(
        call(&table, &lookup(b"k")),
        "http://h/t?z=k&a=x%20y%26users&b%20c="
    );
}

#[test]
fn a_policy_question_is_a_form_of_all_attributes() {
    let table = table(Program::Policy, r#"target = "http://h/p""#);
    let request = policy(&[
        ("helo_name", b"a&recipient=evil"),
        ("sender", b""),
        ("x=y", b"+ %\r\n\xff"),
        ("sender", b"twice"),
    ]);
    assert_eq!(
        call(&table, &request),
        "http://h/p helo_name=a%26recipient%3Devil&sender=&x%3Dy=%2B%20%25%0D%0A%FF&sender=twice"
    );
}

#[test]
fn attributes_stand_in_paths_and_queries() {
    let keys = "target = \"http://h/{sasl_username}\"\nmethod = \"GET\"\nquery = \"{*}\"";
    let table = table(Program::Policy, keys);
    let request = policy(&[("sasl_username", b"a/b"), ("sender", b"x")]);
    assert_eq!(
        call(&table, &request),
        "http://h/a%2Fb?sasl_username=a%2Fb&sender=x"
    );
    for value in ["", ".", ".."] {
        let request = policy(&[("sasl_username", value.as_bytes())]);
        assert_eq!(
            call(&table, &request),
            "temporary: key cannot be sent",
            "{value:?}"
        );
    }
    assert_eq!(
        call(&table, &policy(&[("sender", b"x")])),
        "temporary: key cannot be sent"
    );
}
