//! Requests into HTTP calls: each value escaped for where it stands, or no call at all.

use bytes::BytesMut;
use percent_encoding::utf8_percent_encode;
use postgate::config::{Mode, Table, load};
use postgate::http::call::{ESCAPED, compose};
use postgate::outcome::Outcome;
use postgate::protocol::policy::Policy;
use postgate::protocol::sasl::Sasl;
use postgate::protocol::sasl::rules::Logins;
use postgate::protocol::socketmap::Socketmap;
use postgate::protocol::tcp_lookup::TcpLookup;
use postgate::protocol::{Facts, Protocol as _, Step};
use postgate::request::Request;
use postgate::table::keys;
use serde_json::{Value, json};

/// Makes the one table of a configuration.
fn table(program: &'static Facts, keys: &str) -> Table {
    let path = std::env::temp_dir().join(format!(
        "postgate-calls-{}-{:?}.toml",
        std::process::id(),
        std::thread::current().id()
    ));
    let text = format!("[{}.users]\n{keys}\n", program.name);
    std::fs::write(&path, text).expect("a file");
    let (config, report) = load(&path, Mode::Serve(Socketmap::FACTS));
    std::fs::remove_file(&path).expect("the file");
    let config = config.unwrap_or_else(|| panic!("{keys}: {:?}", report.problems()));
    config.tables.into_iter().next().expect("a table")
}

fn lookup(key: &[u8]) -> Request {
    Request::of(None, "key", key.to_vec().into())
}

fn policy(attributes: &[(&str, &[u8])]) -> Request {
    let pair =
        |(name, value): &(&str, &[u8])| (name.as_bytes().to_vec().into(), value.to_vec().into());
    Request {
        values: attributes.iter().map(pair).collect(),
        ..Request::default()
    }
}

/// The URLs, headers and body of a call, or what is said without one.
fn call(table: &Table, request: &Request) -> String {
    let normalised = keys::normalise(request, table);
    match normalised.and_then(|request| compose(table, &request)) {
        Ok(call) => {
            let urls: Vec<_> = call.urls.iter().map(ToString::to_string).collect();
            let headers = call.headers.iter().map(|(name, value)| {
                format!(" {name}: {}", value.to_str().expect("visible ASCII"))
            });
            let headers: String = headers.collect();
            let body = call
                .body
                .map(|body| String::from_utf8(body.to_vec()).expect("text"));
            let body = body.map_or_else(String::new, |body| format!(" {body}"));
            format!("{}{headers}{body}", urls.join(" "))
        }
        Err(Outcome::NotFound) => "not found".to_owned(),
        Err(Outcome::Temporary(failure)) => format!("temporary: {}", failure.reason),
        Err(outcome) => format!("{outcome:?}"),
    }
}

#[test]
fn a_key_in_the_query_is_asked_whatever_it_is() {
    let table = table(TcpLookup::FACTS, r#"target = "http://h/t?x=1""#);
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
    let table = table(TcpLookup::FACTS, r#"target = "http://h/a/{key}/z""#);
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
    let table = table(TcpLookup::FACTS, r#"target = "http://h/{domain}/{local}""#);
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
    let table = table(TcpLookup::FACTS, r#"target = "http://h/{local}""#);
    assert_eq!(call(&table, &lookup(b"a")), "http://h/a");
    assert_eq!(call(&table, &lookup(b"a@b")), "http://h/a");
    assert_eq!(call(&table, &lookup(b"@b")), "not found");
}

#[test]
fn parts_of_a_segment_are_judged_together() {
    let table = table(TcpLookup::FACTS, r#"target = "http://h/.{key}/x{key}""#);
    assert_eq!(call(&table, &lookup(b".")), "not found");
    assert_eq!(call(&table, &lookup(b"")), "not found");
    assert_eq!(call(&table, &lookup(b"a")), "http://h/.a/xa");
}

#[test]
fn what_postfix_asks_on_its_own_account_is_not_passed_on() {
    let plain = table(TcpLookup::FACTS, r#"target = "http://h/t""#);
    let special = table(
        TcpLookup::FACTS,
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
    let any = table(Socketmap::FACTS, r#"target = "http://h""#);
    let request = Request::of(Some(b"a/b&c"[..].into()), "key", b"k"[..].into());
    assert_eq!(call(&any, &request), "http://h/?name=a%2Fb%26c&key=k");
    let in_path = table(Socketmap::FACTS, r#"target = "http://h/{name}/{key}""#);
    assert_eq!(call(&in_path, &request), "http://h/a%2Fb%26c/k");
}

#[test]
fn a_query_is_sent_in_the_order_written() {
    let keys =
        "target = \"http://h/t?\"\nquery = { z = \"{key}\", a = \"x y&{name}\", \"b c\" = \"\" }";
    let table = table(TcpLookup::FACTS, keys);
    assert_eq!(
        call(&table, &lookup(b"k")),
        "http://h/t?z=k&a=x%20y%26users&b%20c="
    );
}

#[test]
fn a_policy_question_is_a_form_of_all_attributes() {
    let table = table(Policy::FACTS, r#"target = "http://h/p""#);
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
    let table = table(Policy::FACTS, keys);
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

/// A part that an attribute does not have is empty, as an attribute that was not sent.
#[test]
fn parts_of_attributes_stand_where_attributes_do() {
    let keys = "target = \"http://h/{sender.domain}?n={client_address.net}\"\n\
                query = { l = \"{sender.local}\" }\n\
                json = { d = \"{x.domain}\", r = \"{recipient.domain}\" }\n\
                headers = { X-Own = \"{x.y.local}\" }\nextra-attributes = [\"x\", \"x.y\"]";
    let table = table(Policy::FACTS, keys);
    let request = policy(&[
        ("sender", b"a/b@c.d/e"),
        ("client_address", b"2001:db8::7"),
        ("x", b"joe"),
        ("x.y", b"f g@h"),
    ]);
    assert_eq!(
        call(&table, &request),
        "http://h/c.d%2Fe?n=2001%3Adb8%3A%3A%2F64&l=a%2Fb x-own: f%20g {\"d\":\"\",\"r\":\"\"}"
    );
    // An empty segment is sent to nobody.
    let none = policy(&[("sender", b"joe")]);
    assert_eq!(call(&table, &none), "temporary: key cannot be sent");
}

#[test]
fn targets_stand_in_their_order() {
    let keys = r#"target = ["http://a/{key}", "http://b/x?y={key}", "http://c/{domain}"]"#;
    let table = table(TcpLookup::FACTS, keys);
    assert_eq!(
        call(&table, &lookup(b"k@d")),
        "http://a/k%40d http://b/x?y=k%40d http://c/d"
    );
    // What one of them cannot say, none of them is asked.
    assert_eq!(call(&table, &lookup(b"k")), "not found");
}

#[test]
fn a_header_holds_one_line_of_visible_ascii() {
    let keys = "target = \"http://h\"\nheaders = { X-Key = \"k={key};\", X-Name = \"{name}\" }";
    let table = table(TcpLookup::FACTS, keys);
    for (key, expected) in [
        (&b"a@b"[..], "a@b"),
        (b"\r\nX-Evil: 1", "%0D%0AX-Evil:%201"),
        (b"50%", "50%25"),
        (b"\0\x7f\xff", "%00%7F%FF"),
        ("\u{fc}".as_bytes(), "%C3%BC"),
        (b"\"<>;,", "\"<>;,"),
        (b"", ""),
    ] {
        let found = call(&table, &lookup(key));
        let (_, found) = found.split_once(" x-key: ").expect("the header");
        assert_eq!(found, format!("k={expected}; x-name: users"));
    }
}

#[test]
fn a_json_body_holds_a_key_as_one_string() {
    let keys = "target = \"http://h\"\nmethod = \"POST\"\n\
        json = { z = \"{key}\", a = [1, -2.5, true, \"x {local} at {domain}\"], \"b{{\" = { c = {}, d = [] } }";
    let table = table(TcpLookup::FACTS, keys);
    for (key, z, text) in [
        (&b"a@b"[..], "a@b", "x a at b"),
        (b"\"},\\\"@b", "\\\"},\\\\\\\"@b", "x \\\"},\\\\\\\" at b"),
        (b"\r\n\0@b", "\\r\\n\\u0000@b", "x \\r\\n\\u0000 at b"),
        (
            "\u{fc}{key}@b".as_bytes(),
            "\u{fc}{key}@b",
            "x \u{fc}{key} at b",
        ),
    ] {
        let expected = format!(
            r#"http://h/ {{"z":"{z}","a":[1,-2.5,true,"{text}"],"b{{{{":{{"c":{{}},"d":[]}}}}"#
        );
        assert_eq!(call(&table, &lookup(key)), expected);
    }
    let outcome = call(&table, &lookup(b"\xff@b"));
    assert_eq!(outcome, "temporary: key cannot be sent");
}

#[test]
fn a_json_body_can_be_the_key_alone() {
    let table = table(
        TcpLookup::FACTS,
        "target = \"http://h\"\nmethod = \"PUT\"\njson = \"{key}\"",
    );
    assert_eq!(call(&table, &lookup(b"a\"b")), "http://h/ \"a\\\"b\"");
}

#[test]
fn all_attributes_are_an_object_in_json() {
    let keys = "target = \"http://h\"\njson = { request = \"{*}\", from = \"{sender}\" }";
    let table = table(Policy::FACTS, keys);
    let request = policy(&[("sender", b"a\"b"), ("x\"y", b""), ("sender", b"second")]);
    assert_eq!(
        call(&table, &request),
        r#"http://h/ {"request":{"sender":"a\"b","x\"y":""},"from":"a\"b"}"#
    );
    let outcome = call(&table, &policy(&[("sender", b"\xff")]));
    assert_eq!(outcome, "temporary: key cannot be sent");
}

#[test]
fn a_form_can_be_chosen_attribute_by_attribute() {
    let keys = "target = \"http://h\"\nextra-attributes = [\"my_own\"]\n\
        form = { user = \"{sasl_username}\", own = \"<{my_own}>\", fixed = \"a b\" }";
    let table = table(Policy::FACTS, keys);
    let request = policy(&[("sasl_username", b"a&b=c+d"), ("my_own", b"\r\n")]);
    assert_eq!(
        call(&table, &request),
        "http://h/ user=a%26b%3Dc%2Bd&own=%3C%0D%0A%3E&fixed=a%20b"
    );
    let keys = "target = \"http://h\"\nmethod = \"POST\"\nform = { k = \"{key}\" }";
    let lookups = crate::table(TcpLookup::FACTS, keys);
    assert_eq!(call(&lookups, &lookup(b"a&b")), "http://h/ k=a%26b");
}

#[test]
fn a_key_is_normalised_before_it_is_asked_for() {
    let keys = "target = \"http://h/{key}\"\n\
        normalise = { lowercase = true, delimiter = \"+-\", pattern = \"[^@]+@(a|b)[.]test|[.a-z]+\" }";
    let table = table(TcpLookup::FACTS, keys);
    for (key, expected) in [
        ("User+Ext@A.test", "http://h/user%40a.test"),
        ("user-x+y@b.test", "http://h/user%40b.test"),
        ("+ext@a.test", "http://h/%2Bext%40a.test"),
        ("Mailer-Daemon@a.test", "http://h/mailer-daemon%40a.test"),
        ("owner-list@a.test", "http://h/owner-list%40a.test"),
        ("list-request@a.test", "http://h/list-request%40a.test"),
        ("-request@a.test", "http://h/-request%40a.test"),
        ("\u{dc}@a.test", "http://h/%C3%BC%40a.test"),
        ("A.test", "http://h/a.test"),
        ("user@c.test", "not found"),
        ("user@a.test.evil", "not found"),
        ("a-b.test", "not found"),
        ("", "not found"),
        ("x@a.test\n", "not found"),
        ("*", "not found"),
    ] {
        assert_eq!(call(&table, &lookup(key.as_bytes())), expected, "{key}");
    }
    assert_eq!(call(&table, &lookup(b"\xff@a.test")), "not found");
}

#[test]
fn bytes_that_are_no_text_are_normalised_as_far_as_they_go() {
    let keys = "target = \"http://h/{key}\"\nnormalise = { lowercase = true, delimiter = \"+\" }";
    let table = table(TcpLookup::FACTS, keys);
    assert_eq!(call(&table, &lookup(b"A\xff+x@B")), "http://h/a%FF%40b");
}

#[test]
fn a_path_stays_as_it_is_written() {
    for (target, expected) in [
        ("http://h", "http://h/?key=k"),
        ("http://h/", "http://h/?key=k"),
        ("http://h//x//", "http://h//x//?key=k"),
        ("http://h/%41%2f/a", "http://h/%41%2f/a?key=k"),
        ("http://h/a?", "http://h/a?key=k"),
        ("http://h/a?b&c", "http://h/a?b&c&key=k"),
        ("http://h//{key}//", "http://h//k//"),
        ("HTTP://H:80/{key}?b", "http://h/k?b"),
        ("http://[::1]:8080/{{{key}}}", "http://[::1]:8080/%7Bk%7D"),
    ] {
        let table = table(TcpLookup::FACTS, &format!("target = \"{target}\""));
        assert_eq!(call(&table, &lookup(b"k")), expected, "{target}");
    }
}

/// Makes the call for each key; `None` is one that is not asked for.
fn normalised(keys: &str, rows: &[(&str, Option<&str>)]) {
    let keys = format!("target = \"http://h\"\nquery = {{ k = \"{{key}}\" }}\n{keys}");
    let table = table(TcpLookup::FACTS, &keys);
    for (key, asked) in rows {
        let expected = match asked {
            Some(asked) => format!("http://h/?k={}", utf8_percent_encode(asked, ESCAPED)),
            None => "not found".to_owned(),
        };
        assert_eq!(call(&table, &lookup(key.as_bytes())), expected, "{key:?}");
    }
}

#[test]
fn a_key_is_asked_in_lower_case() {
    normalised(
        "normalise = { lowercase = true }",
        &[
            ("Alice@EXAMPLE.Com", Some("alice@example.com")),
            ("A+B", Some("a+b")),
            ("[]^_`@Z", Some("[]^_`@z")),
            ("ÄÖ@Example.com", Some("äö@example.com")),
        ],
    );
    normalised("", &[("Alice@EXAMPLE.Com", Some("Alice@EXAMPLE.Com"))]);
}

#[test]
fn a_local_part_is_cut_at_the_delimiter_as_postfix_cuts_it() {
    normalised(
        "normalise = { delimiter = \"+\" }",
        &[
            ("alice+x@example.com", Some("alice@example.com")),
            ("alice+x+y@example.com", Some("alice@example.com")),
            ("alice+@example.com", Some("alice@example.com")),
            ("+x@example.com", Some("+x@example.com")),
            ("+@example.com", Some("+@example.com")),
            ("+a+b@example.com", Some("+a+b@example.com")),
            ("alice@ex+ample.com", Some("alice@ex+ample.com")),
            ("alice+x@y@example.com", Some("alice@example.com")),
            ("alice+x", Some("alice+x")),
            ("alice", Some("alice")),
            ("@example.com", Some("@example.com")),
            ("example.com", Some("example.com")),
            ("owner-list+x@example.com", Some("owner-list@example.com")),
            ("alice-x@example.com", Some("alice-x@example.com")),
        ],
    );
    normalised(
        "normalise = { delimiter = \"-\" }",
        &[
            ("alice-x@example.com", Some("alice@example.com")),
            ("owner-list@example.com", Some("owner-list@example.com")),
            ("Owner-list@example.com", Some("Owner-list@example.com")),
            ("list-request@example.com", Some("list-request@example.com")),
            ("list-REQUEST@example.com", Some("list-REQUEST@example.com")),
            (
                "mailer-daemon@example.com",
                Some("mailer-daemon@example.com"),
            ),
            (
                "MAILER-DAEMON@example.com",
                Some("MAILER-DAEMON@example.com"),
            ),
            (
                "double-bounce@example.com",
                Some("double-bounce@example.com"),
            ),
            ("postmaster@example.com", Some("postmaster@example.com")),
            ("-request@example.com", Some("-request@example.com")),
            ("my-owner-list@example.com", Some("my@example.com")),
            ("list-requests@example.com", Some("list@example.com")),
            ("double-bounces@example.com", Some("double@example.com")),
        ],
    );
    normalised(
        "normalise = { delimiter = \"+-\" }",
        &[
            ("alice-x+y@example.com", Some("alice@example.com")),
            ("alice+x-y@example.com", Some("alice@example.com")),
            ("owner-list+x@example.com", Some("owner-list+x@example.com")),
            (
                "list+x-request@example.com",
                Some("list+x-request@example.com"),
            ),
        ],
    );
}

#[test]
fn a_key_that_the_pattern_does_not_match_as_a_whole_is_not_found_without_a_call() {
    normalised(
        "normalise = { pattern = \"[a-z]+@example\\\\.com\" }",
        &[
            ("alice@example.com", Some("alice@example.com")),
            ("Alice@example.com", None),
            ("xalice@example.com.evil", None),
            ("1alice@example.com", None),
            ("alice@exampleXcom", None),
            ("alice@example.com\n", None),
            ("\nalice@example.com", None),
            ("alice", None),
        ],
    );
    normalised(
        "normalise = { pattern = \"a|b\" }",
        &[
            ("a", Some("a")),
            ("b", Some("b")),
            ("ab", None),
            ("ax", None),
            ("xb", None),
        ],
    );
    normalised(
        "normalise = { pattern = \"^(?m)a$\" }",
        &[("a", Some("a")), ("a\nb", None), ("b\na", None)],
    );
}

#[test]
fn a_key_is_lower_cased_then_cut_then_compared() {
    normalised(
        "normalise = { lowercase = true, delimiter = \"+\", pattern = \"[a-z]+@example\\\\.com\" }",
        &[
            ("Alice+News@Example.COM", Some("alice@example.com")),
            ("alice2@example.com", None),
            ("+alice@example.com", None),
        ],
    );
}

/// The JSON of the call for a key.
fn body(keys: &str, key: &str) -> Value {
    let keys = format!("target = \"http://h\"\nmethod = \"POST\"\n{keys}");
    let call = call(&table(TcpLookup::FACTS, &keys), &lookup(key.as_bytes()));
    let (_, body) = call.split_once(' ').expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn a_key_in_json_is_a_string_whatever_it_holds() {
    let keys = "json = { q = \"{key}\", in = [\"<{key}>\", { name = \"{name}\" }] }";
    for key in [
        "key",
        "\"",
        "\",\"q\":\"x",
        "\\",
        "\\u0041\\n",
        "\r\n\t\u{8}\u{c}\u{1}\u{1f}\u{7f}",
        "a\0b",
        "ü€😀\u{2028}\u{feff}",
        "{name}",
        "{*}",
        "{{key}}",
        "}]},{\"a\":[",
        "</script>",
    ] {
        let expected = json!({ "q": key, "in": [format!("<{key}>"), { "name": "users" }] });
        assert_eq!(body(keys, key), expected, "{key:?}");
    }
}

#[test]
fn json_holds_whatever_toml_holds() {
    for (json_in_toml, expected) in [
        ("\"{key}\"", json!("key")),
        ("[\"{key}\"]", json!(["key"])),
        (
            "{ k = \"{key}\", n = 9007199254740993, neg = -1, f = 1.5, yes = true, no = false }",
            json!({ "k": "key", "n": 9_007_199_254_740_993_i64, "neg": -1, "f": 1.5,
                    "yes": true, "no": false }),
        ),
        (
            "{ a = { b = [[\"{key}\"], [], {}] }, brace = \"{{key}\", empty = \"\" }",
            json!({ "a": { "b": [["key"], [], {}] }, "brace": "{key}", "empty": "" }),
        ),
    ] {
        let keys = format!("json = {json_in_toml}");
        assert_eq!(body(&keys, "key"), expected, "{json_in_toml}");
    }
}

#[test]
fn the_members_of_json_stand_in_the_order_written() {
    let keys = "target = \"http://h\"\nmethod = \"POST\"\n\
                json = { z = \"{key}\", a = 1, m = { y = 1, b = 2 } }";
    let expected = r#"http://h/ {"z":"key","a":1,"m":{"y":1,"b":2}}"#;
    assert_eq!(
        call(&table(TcpLookup::FACTS, keys), &lookup(b"key")),
        expected
    );
}

#[test]
fn a_key_in_a_header_is_visible_ascii() {
    let keys = "target = \"http://h\"\nquery = { k = \"\" }\n\
                headers = { X-Key = \"<{key}>\", X-Parts = \"{local} at {domain}; {name}\" }";
    let table = table(TcpLookup::FACTS, keys);
    let all: String = (b'!'..=b'~').map(char::from).collect();
    let all_seen = all.replace('%', "%25");
    let rows: [(&[u8], &str); 8] = [
        (b"key", "key"),
        (all.as_bytes(), &all_seen),
        (b"a b", "a%20b"),
        (
            b"\r\nX-Evil: 1\r\n\r\nGET / HTTP/1.1",
            "%0D%0AX-Evil:%201%0D%0A%0D%0AGET%20/%20HTTP/1.1",
        ),
        (b"%41", "%2541"),
        ("é😀".as_bytes(), "%C3%A9%F0%9F%98%80"),
        (b"\xff\x80\x7f\x1b\t", "%FF%80%7F%1B%09"),
        (b"{name}", "{name}"),
    ];
    for (key, seen) in rows {
        let key = [key, b"@example.com"].concat();
        let expected = format!(
            "http://h/?k= x-key: <{seen}@example.com> x-parts: {seen} at example.com; users"
        );
        assert_eq!(call(&table, &lookup(&key)), expected);
    }
}

/// Neither the steps of a connection nor the call of a login.
#[test]
fn no_debug_shows_a_password() {
    let (mut sasl, _) = Sasl::open(&Logins::default());
    // The name "joe", and then the password "hunter2".
    let sent = "VERSION\t1\t0\nCPID\t1\nAUTH\t1\tLOGIN\tresp=am9l\nCONT\t1\taHVudGVyMg==\n";
    let mut input = BytesMut::from(sent);
    let mut shown = Vec::new();
    let request = loop {
        let step = sasl.next_step(&mut input);
        shown.push(format!("{step:?} {sasl:?}"));
        if let Step::Ask(_, request) = step {
            break request;
        }
    };
    assert_eq!(request.secret("password").expect("one").expose(), "hunter2");
    for keys in [
        "target = \"http://h/{username}\"",
        "target = \"http://h/{username}\"\nform = { p = \"{password}\" }",
        "target = \"http://h/{username}\"\nmethod = \"GET\"\nheaders = { X = \"{password}\" }",
        "target = \"http://h\"\nmethod = \"GET\"\n\
         basic-auth = { user = \"{username}\", password = \"{password}\" }",
    ] {
        let table = table(Sasl::FACTS, &format!("{keys}\naccepted = \"/ok\""));
        let call = compose(&table, &request).expect("a call");
        let has_it = call.headers.iter().any(|(_, value)| value.is_sensitive());
        assert!(has_it || call.body.is_some(), "{keys}");
        shown.push(format!("{call:?} {:?}", call.headers));
    }
    shown.push(format!("{request:?}"));
    for text in shown {
        for trace in ["hunter2", "aHVudGVy", "am9lOmh1bnRlcjI"] {
            assert!(!text.contains(trace), "{text}");
        }
    }
}
