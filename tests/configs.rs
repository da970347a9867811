//! Loads every configuration under `tests/configs`: good ones load, those that are warned about load
//! as well, and these and bad ones say exactly what the file beside them has.

use std::path::{Path, PathBuf};

use postgate::config::{Config, HeaderText, Mode, Report, key_names, load, show};
use postgate::protocol::policy::Policy;
use postgate::protocol::socketmap::Socketmap;
use postgate::protocol::{Facts, Protocol as _};
use reqwest::header::HeaderName;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/configs")
        .join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder(name))
        .expect("the folder of configurations")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    assert!(files.len() > 2, "only {} files in {name}", files.len());
    files
}

/// What an operator would see, with the file's name alone.
fn shown(report: &Report, path: &Path) -> String {
    let folder = format!("{}/", path.parent().expect("a folder").display());
    report
        .problems()
        .iter()
        .map(|p| {
            format!("{}\n{}", p.line.replace(&folder, ""), p.quote)
                .trim_end()
                .to_owned()
                + "\n"
        })
        .collect()
}

fn load_well(path: &Path) -> Config {
    let (config, report) = load(path, Mode::Serve(Socketmap::FACTS));
    assert_eq!(shown(&report, path), "", "{}", path.display());
    config.expect("a configuration without problems")
}

/// Loads a text through a file of its own.
fn load_text(text: &str) -> Config {
    let path = file_of(text);
    let config = load_well(&path);
    std::fs::remove_file(path).expect("the file");
    config
}

fn file_of(text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!(
        "postgate-configs-{}-{:?}.toml",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, text).expect("a file");
    path
}

/// Demands that a configuration says exactly what the file beside it has.
fn load_with_problems(path: &Path) -> Option<Config> {
    let (config, report) = load(path, Mode::Serve(Socketmap::FACTS));
    let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
    assert_eq!(shown(&report, path), expected, "{}", path.display());
    config
}

#[test]
fn bad_configurations_say_what_is_wrong_with_them() {
    for path in files("bad") {
        let config = load_with_problems(&path);
        assert!(config.is_none(), "{} is taken all the same", path.display());
    }
}

#[test]
fn configurations_that_are_warned_about_are_taken() {
    for path in files("warned") {
        let config = load_with_problems(&path);
        assert!(config.is_some(), "{} is not taken", path.display());
    }
}

#[test]
fn what_is_shown_loads_again_with_the_same_meaning() {
    for path in files("good") {
        let config = load_well(&path);
        let text = show(&config).expect("TOML");
        assert!(!text.contains("s3cret"), "{}: {text}", path.display());
        // The place of a secret is shown; one in the file itself can only be hidden.
        assert!(!text.contains("text-secret"), "{}: {text}", path.display());
        if !text.contains("(hidden)") {
            let again = load_text(&text);
            assert_eq!(again.tables.len(), config.tables.len());
            for (again, table) in again.tables.iter().zip(&config.tables) {
                assert_eq!(again, table, "{}", path.display());
            }
            assert_eq!(again, config, "{}", path.display());
        }
    }
}

#[test]
fn a_shown_header_keeps_its_placeholders_only() {
    for (header, expected) in [
        ("{key}", "{key}"),
        ("Token s3cret {key}", "(hidden){key}"),
        ("{key}{name}{{s3cret}}", "{key}{name}(hidden)"),
        ("{{{key}}}", "(hidden){key}(hidden)"),
    ] {
        let config = load_text(&format!(
            "[socketmap.x]\ntarget = \"http://h\"\nheaders = {{ X-Own = \"{header}\" }}\n"
        ));
        let text = show(&config).expect("TOML");
        let line = format!("x-own = \"{expected}\"\n");
        assert!(text.contains(&line), "{header}: {text}");
    }
}

/// A query shows them so as well.
#[test]
fn constants_in_the_query_of_a_url_are_hidden_in_listings() {
    let config = load_text(
        "[socketmap.x]\n\
         target = [\"http://a/x?k={key}&v=s3cret\", \"http://a/y?v=s3cret{key}&flag\"]\n\
         [socketmap.y]\ntarget = \"http://a/?s={name}/{key}&s3=s3cret\"\n\
         [socketmap.y.oauth2]\ntoken-url = \"http://b/token?v=s3cret\"\n\
         client-id = \"c\"\nclient-secret = \"s3cret\"\n",
    );
    let text = show(&config).expect("TOML");
    for line in [
        "target = [\"http://a/x?k={key}&v=(hidden)\", \"http://a/y?v=(hidden){key}&flag\"]\n",
        "target = \"http://a/?s={name}(hidden){key}&s3=(hidden)\"\n",
        "token-url = \"http://b/token?(hidden)\"\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
    assert_eq!(show(&load_text(&text)).expect("TOML"), text);
}

/// A constant may be a token, which no quoted line and no listing shows.
#[test]
fn constants_of_a_request_are_hidden_in_quotes_and_listings_alike() {
    let text = |more: &str| {
        format!(
            "[policy.x]\ntarget = \"http://h\"\n\
             query = {{ a = \"s3cret\", b = \"{{sender}}\", c = \"s3cret{{sender}}\"{more} }}\n\
             json = {{ a = \"s3cret\", b = \"{{sender}}\", c = [51987, 5.1987, true]{more} }}\n\
             [policy.y]\ntarget = \"http://h\"\nsocket = \"z\"\n\
             form = {{ a = \"s3cret\", b = \"{{sender}}\"{more} }}\n"
        )
    };
    let listing = show(&load_text(&text(""))).expect("TOML");
    let path = file_of(&text(
        ", d = \"{nobody}\", e = \"ab{s3cret}\", f = \"a{hushhush}b\"",
    ));
    let (_, report) = load(&path, Mode::Check);
    std::fs::remove_file(&path).expect("the file");
    let quotes = shown(&report, &path);
    for line in [
        "\na = \"(hidden)\"\nb = \"{sender}\"\nc = \"(hidden){sender}\"\n",
        "\nc = [\"(hidden)\", \"(hidden)\", true]\n",
        "\na = \"(hidden)\"\nb = \"{sender}\"\n",
    ] {
        assert!(listing.contains(line), "{line}: {listing}");
    }
    for line in [
        "query = { a = ***, b = \"{sender}\", c = ***, d = ***, e = ***, f = *** }",
        "json = { a = ***, b = \"{sender}\", c = [***, ***, true], d = ***, e = ***, f = *** }",
        "form = { a = ***, b = \"{sender}\", d = ***, e = ***, f = *** }",
    ] {
        assert!(quotes.contains(line), "{line}: {quotes}");
    }
    for secret in ["s3cret", "hushhush", "51987", "5.1987"] {
        assert!(!listing.contains(secret), "{secret}: {listing}");
        assert!(!quotes.contains(secret), "{secret}: {quotes}");
    }
}

/// A token written for one host goes to no other.
#[test]
fn a_credential_of_its_own_displaces_every_inherited_one() {
    const KINDS: [&str; 6] = [
        "auth-token = \"x\"\n",
        "bearer-token = \"x\"\n",
        "basic-auth = { user = \"x\", password = \"x\" }\n",
        "oauth2 = { token-url = \"http://x\", client-id = \"x\", client-secret = \"x\" }\n",
        "headers = { authorization = \"x\" }\n",
        "headers = { x-auth-token = \"x\" }\n",
    ];
    let sent = |inherited: &str, own: &str| {
        let table = format!("[socketmap.x]\ntarget = \"http://h\"\n{own}");
        let config = load_text(&format!("[http]\n{inherited}{table}"));
        let endpoint = &config.tables[0].endpoint;
        let name = |header: &(HeaderName, HeaderText)| format!("{}: {:?}", header.0, header.1);
        let headers: Vec<_> = endpoint.headers.iter().map(name).collect();
        format!(
            "{:?} {:?} {headers:?}",
            endpoint.auth_token, endpoint.credential
        )
    };
    for inherited in KINDS {
        for own in KINDS {
            assert_eq!(sent(inherited, own), sent("", own), "{inherited}{own}");
        }
        assert_ne!(sent(inherited, ""), sent("", ""), "{inherited}");
    }
    let both = "auth-token = \"x\"\nheaders = { Authorization = \"x\", X-Other = \"x\" }\n";
    assert_eq!(sent(both, ""), sent("", both));
    assert_eq!(sent("", both), sent(KINDS[2], both));
    assert_eq!(
        sent(both, KINDS[1]),
        sent("headers = { X-Other = \"x\" }\n", KINDS[1])
    );
    // What takes one back is none.
    assert_eq!(sent(both, "bearer-token = false\n"), sent(both, ""));
    assert_eq!(
        sent(both, "headers = { authorization = false }\n"),
        sent("auth-token = \"x\"\nheaders = { X-Other = \"x\" }\n", "")
    );
}

#[test]
fn a_syntax_error_shows_the_key_it_follows() {
    let mut keys = key_names();
    keys.insert("http.retries");
    let text: String = keys.iter().map(|k| format!("{k} = \"s3cret\n")).collect();
    let path = file_of(&text);
    let (_, report) = load(&path, Mode::Check);
    std::fs::remove_file(&path).expect("the file");
    let shown = shown(&report, &path);
    for key in keys {
        assert!(
            shown.contains(&format!(" | {key} = ***\n")),
            "{key}: {shown}"
        );
    }
}

/// Returns whether a text sets a key, quotes it, or has a table of this name.
fn has_key(text: &str, key: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.match_indices(key).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + key.len()..]);
        let is_key = after.starts_with(" = ") || after.starts_with(['.', ']', '"']);
        is_key && !before.ends_with(is_inside)
    })
}

#[test]
fn the_full_configuration_and_the_example_have_every_key() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["tests/configs/good/full.toml", "config.toml.example"] {
        let text = std::fs::read_to_string(root.join(name)).expect("the file");
        for key in key_names() {
            assert!(has_key(&text, key), "{key} is not in {name}");
        }
    }
}

#[test]
fn no_secret_is_shown_by_debug() {
    for name in ["secrets-in-the-file.toml", "constants.toml"] {
        let config = load_well(&folder("good").join(name));
        let text = format!("{config:?}");
        assert!(text.contains("(hidden)"));
        assert!(!text.contains("text-secret"), "{text}");
    }
}

#[test]
fn the_example_loads_and_its_settings_are_the_defaults() {
    let example = load_well(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example"));
    let bare = load_text(
        "[socketmap.aliases]\ntarget = \"http://127.0.0.1:8080/aliases\"\n\
         [tcp-lookup.transport]\ntarget = \"http://127.0.0.1:8080/transport/{key}\"\nsocket = \"9001\"\n\
         [policy.main]\ntarget = \"http://127.0.0.1:8080/policy\"\nsocket = \"policy\"\n\
         [dict.auth]\ntarget = \"http://127.0.0.1:8080/dovecot{/path*}{/user}\"\n\
         [sasl.submission]\ntarget = \"http://127.0.0.1:8080/login\"\naccepted = \"/ok\"\n",
    );
    assert_eq!(example, bare);
}

#[test]
fn the_examples_comments_show_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example");
    let text = std::fs::read_to_string(&path).expect("the example");
    let shown = show(&load_well(&path)).expect("TOML");
    // What is written there behind a comment sign, and what every table has in fact.
    for key in [
        "method",
        "special-keys",
        "mechanisms",
        "failure-delay",
        "reason",
        "response",
        "missing",
        "list-separator",
        "true-value",
        "on-not-found",
        "on-temporary",
        "on-permanent",
        "permit-actions",
        "restriction-classes",
        "user-agent",
    ] {
        let value = |line: &str| {
            let (_, value) = line.split_once(" = ").expect("a value");
            value.split("  ").next().expect("a value").trim().to_owned()
        };
        let documented: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| line.starts_with(&format!("{key} = ")))
            .map(value)
            .collect();
        assert!(!documented.is_empty(), "{key} is not in the example");
        let real: Vec<_> = shown
            .lines()
            .filter(|line| line.starts_with(&format!("{key} = ")))
            .map(value)
            .collect();
        for value in documented {
            assert!(real.contains(&value), "{key}: {value} is none of {real:?}");
        }
    }
}

#[test]
fn a_program_needs_the_secrets_of_its_own_tables_only() {
    let path = folder("bad").join("credentials.toml");
    let of = |mode| {
        let (_, report) = load(&path, mode);
        shown(&report, &path)
    };
    let missing = "file \"/nowhere/at/all\" cannot be read";
    assert!(of(Mode::Serve(Socketmap::FACTS)).contains(missing));
    assert!(!of(Mode::Serve(Policy::FACTS)).contains(missing));
    let looked = of(Mode::Check);
    assert!(
        looked.contains("warning: socketmap.nowhere.auth-token: file"),
        "{looked}"
    );
}

#[test]
fn only_a_program_with_limits_needs_the_secret_of_the_store() {
    let path = folder("bad").join("store-secret.toml");
    let of = |mode| {
        let (_, report) = load(&path, mode);
        shown(&report, &path)
    };
    let missing = "store.redis: file \"/nowhere/at/all\" cannot be read: no such file";
    assert!(of(Mode::Serve(Policy::FACTS)).contains(missing));
    assert!(!of(Mode::Serve(Socketmap::FACTS)).contains("store.redis"));
    let looked = of(Mode::Check);
    assert!(looked.contains("warning: store.redis: file"), "{looked}");
}

/// A warning in the same table must not hide the error.
#[test]
fn a_policy_call_that_carries_nothing_is_refused_where_a_credential_is_missing() {
    let path = folder("bad").join("policy-carries-nothing-warned.toml");
    let (_, report) = load(&path, Mode::Check);
    let shown = shown(&report, &path);
    assert!(
        shown.contains("warning: policy.no-credential.auth-token: "),
        "{shown}"
    );
    assert!(
        shown.contains("12:9: policy.no-credential: the call is the same for every request"),
        "{shown}"
    );
}

#[test]
fn a_table_takes_over_what_it_does_not_set() {
    let config = load_well(&folder("good").join("inheritance.toml"));
    let table = |program: &'static Facts, name: &str| {
        let found = config.tables_of(program).find(|table| table.name == name);
        &found.expect("the table").endpoint
    };
    let headers = |program, name| {
        let mut headers: Vec<_> = table(program, name)
            .headers
            .iter()
            .map(|(name, value)| match value {
                HeaderText::Fixed(secret) => {
                    let value = secret.value.as_ref().expect("a value");
                    format!("{name}: {}", value.to_str().expect("a text"))
                }
                HeaderText::Filled(template) => format!("{name}: {template}"),
            })
            .collect();
        headers.sort();
        headers
    };
    let plain = table(Socketmap::FACTS, "plain");
    assert_eq!(plain.request_timeout.as_secs(), 3);
    assert!(plain.special_keys);
    assert_eq!(headers(Socketmap::FACTS, "plain"), ["x-a: 1", "x-b: 2"]);
    assert_eq!(headers(Socketmap::FACTS, "own"), ["x-b: 3", "x-c: 4"]);
    assert_eq!(headers(Socketmap::FACTS, "none"), Vec::<String>::new());
    let back = table(Socketmap::FACTS, "none");
    assert_eq!(back.request_timeout.as_secs(), 5);
    assert!(!back.special_keys);
    assert!(back.auth_token.is_none() && back.credential.is_none());
    assert_eq!(back.response_rules.status.verdict(404), None);
    let own = table(Socketmap::FACTS, "own");
    assert!(format!("{:?}", own.credential).starts_with("Some(Basic"));
    assert!(own.auth_token.is_none());
    let verdict = |status| format!("{:?}", own.response_rules.status.verdict(status));
    assert_eq!(verdict(404), "Some(Temporary)");
    assert_eq!(verdict(418), "Some(NotFound)");
    assert_eq!(verdict(503), "Some(Permanent)");
    assert_eq!(verdict(200), "None");
}

/// Where a 401 may be about the program, it is no refusal of a login.
#[test]
fn a_credential_of_the_program_is_told_from_that_of_a_user() {
    const JSON: &str = "json = { u = \"{username}\", p = \"{password}\" }";
    for (keys, expected) in [
        ("", false),
        ("user-agent = \"x\"\nheaders = { X-Site = \"1\" }", false),
        (
            "basic-auth = { user = \"{username}\", password = \"{password}\" }",
            false,
        ),
        ("headers = { Authorization = \"Bearer {password}\" }", false),
        ("headers = { Authorization = \"Bearer x\" }", true),
        ("auth-token = \"x\"", true),
        ("bearer-token = \"x\"", true),
        ("basic-auth = { user = \"x\", password = \"y\" }", true),
        (
            "oauth2 = { token-url = \"https://t/\", client-id = \"x\", client-secret = \"y\" }",
            true,
        ),
        (
            "tls = { client-cert = \"tests/configs/pem/cert.pem\", \
             client-key = \"tests/configs/pem/key.pem\" }",
            true,
        ),
    ] {
        assert_eq!(has_own_credential(JSON, keys), expected, "{keys}");
    }
    for (body, expected) in [
        (
            "json = { password = \"{password}\", user = \"{username}\" }",
            false,
        ),
        (
            "json = { p = \"{password}\", token = \"{username}\", key = 1 }",
            false,
        ),
        (
            "json = { p = \"{password}\", u = \"{username}\", api_key = \"s\" }",
            true,
        ),
        (
            "json = { p = \"{password}\", u = [{ client-secret = \"s {service}\" }, \"{username}\"] }",
            true,
        ),
        (
            "form = { password = \"{password}\", user = \"{username}\" }",
            false,
        ),
        (
            "form = { password = \"{password}\", user = \"{username}\", ApiKey = \"s\" }",
            true,
        ),
    ] {
        assert_eq!(has_own_credential(body, ""), expected, "{body}");
    }
}

fn has_own_credential(body: &str, keys: &str) -> bool {
    let text =
        format!("[sasl.t]\ntarget = \"https://h/login\"\naccepted = \"/ok\"\n{body}\n{keys}\n");
    let config = load_text(&text);
    let rules = config.tables[0].endpoint.response_rules.login.as_ref();
    rules.expect("the rules of a login").has_own_credential
}
