//! What is installed: by `make install`, as a Debian package and as an RPM package through their
//! whole lives, the manual pages, and the programs in a container without systemd.

#[path = "client/mod.rs"]
#[expect(dead_code, reason = "others speak to all programs")]
mod client;
#[path = "package/container.rs"]
mod container;
#[expect(dead_code, reason = "other tests ask more of the lab")]
mod lab;
#[path = "lab/peer.rs"]
mod peer;
#[path = "package/rpm.rs"]
mod rpm;
mod tool;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs, thread};

use client::Binary;
use lab::{Lab, System, lab, on_each_system};
use peer::Peer;

const REPO: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAMS: [&str; 5] = ["tcp-lookup", "socketmap", "policy", "dict", "sasl"];
const SOCKETMAP: &str = "/var/spool/postfix/private/postgate-socketmap";

const CONFIG_PATH: &str = "/etc/postgate/config.toml";

const CONFIG: &str = r#"
[socketmap.echo]
target = "http://127.0.0.1:8080/echo"
[tcp-lookup.echo]
target = "http://127.0.0.1:8080/echo"
[policy.policy]
target = "http://127.0.0.1:8080/policy"
[dict.echo]
target = "http://127.0.0.1:8080/echo"
[sasl.sasl]
target = "http://127.0.0.1:8080/login"
accepted = "/ok"
"#;

/// The folder of what cargo has built for this test.
fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_socketmap"))
        .parent()
        .expect("a folder")
}

/// An empty folder of that name.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &said
}

fn make<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut make = Command::new("make");
    // What a make around the tests hands down is not for this one.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    make.args(["-s", "-C", REPO]).args(arguments);
    make
}

fn has(tool: &str) -> bool {
    let asked = Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .stdout(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

/// Not eprintln!, which the harness keeps to itself when a test passes.
fn skipped(why: &str) {
    let test = thread::current().name().unwrap_or("?").to_owned();
    writeln!(io::stderr(), "{test}: skipped: {why}").expect("stderr");
}

#[test]
fn the_manual_pages_are_what_the_source_makes() {
    let made = folder("man");
    // `--test package` alone does not build the example, so what lies there may be an old one.
    run(Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--example", "man", "--"])
        .arg(&made)
        .current_dir(REPO));
    let kept = Path::new(REPO).join("docs/man");
    let names = |folder: &Path| tree(folder).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&made), names(&kept), "run \"make man\"");
    for name in names(&made) {
        let [made, kept] = [&made, &kept].map(|folder| fs::read_to_string(folder.join(&name)));
        assert!(
            made.expect("a page") == kept.expect("a page"),
            "{name}: run \"make man\""
        );
    }
}

#[test]
fn the_manual_pages_are_clean() {
    let pages = Path::new(REPO).join("docs/man");
    for (tool, arguments) in [
        ("groff", &["-man", "-Tutf8", "-ww", "-z"][..]),
        ("man", &["--warnings", "-l"]),
    ] {
        if !has(tool) {
            skipped(&format!("no {tool}"));
            continue;
        }
        for name in tree(&pages).into_keys() {
            let output = Command::new(tool)
                .args(arguments)
                .arg(pages.join(&name))
                // man shows a page in the character set of its user.
                .env("LC_ALL", "C.UTF-8")
                .output()
                .expect("it starts");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
            assert!(output.status.success(), "{name}");
        }
    }
}

/// The files below a folder, each with its mode, or where it leads to.
fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display())) {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("it is there");
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let what = match fs::read_link(&path) {
                Ok(target) => format!("-> {}", target.display()),
                Err(_) => format!("{:o}", kind.permissions().mode() & 0o7777),
            };
            let name = path.strip_prefix(folder).expect("below it");
            found.insert(name.to_str().expect("UTF-8").to_owned(), what);
        }
    }
    found
}

fn install(name: &str, verb: &str, prefix: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    run(&mut make(&[
        verb,
        &format!("DESTDIR={}", place.display()),
        &format!("PREFIX={prefix}"),
        &format!("BUILD={}", built().display()),
    ]));
    place
}

/// What `make install` is to put below a prefix.
fn layout(prefix: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut put = |name: String, what: &str| files.insert(name, what.to_owned());
    for program in PROGRAMS {
        put(format!("{prefix}/libexec/postgate/{program}"), "755");
        put(
            format!("{prefix}/sbin/postgate-{program}"),
            &format!("-> ../libexec/postgate/{program}"),
        );
        put(
            format!("{prefix}/share/man/man8/postgate-{program}.8"),
            "644",
        );
        for unit in [
            format!("postgate-{program}.service"),
            format!("postgate-metrics-{program}.socket"),
        ] {
            put(format!("{prefix}/lib/systemd/system/{unit}"), "644");
        }
    }
    let units = tree(&Path::new(REPO).join("units"));
    for unit in units.keys().filter(|unit| unit.ends_with(".socket")) {
        put(format!("{prefix}/lib/systemd/system/{unit}"), "644");
    }
    put(format!("{prefix}/lib/sysusers.d/postgate.conf"), "644");
    put(format!("{prefix}/share/man/man5/postgate.toml.5"), "644");
    for text in [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "config.toml.example",
        "docs/README.md",
        "docs/api/openapi.yaml",
        "docs/coming-from-pfxhttp.md",
        "docs/coming-from-podop.md",
        "docs/coming-from-postfix-rest-api-connector.md",
        "docs/coming-from-postfix-rest-connector.md",
        "docs/coming-from-userli-postfix-adapter.md",
        "docs/design.md",
        "docs/dovecot.md",
        "docs/limits.md",
        "docs/metrics.md",
        "docs/mistakes.md",
        "docs/monitoring/alerts.yml",
        "docs/monitoring/dashboard.json",
        "docs/operating.md",
        "docs/sasl.md",
        "docs/threat-model.md",
        "examples/directory.json",
        "examples/directory.php",
        "examples/directory.py",
        "examples/directory.rs",
    ] {
        put(format!("{prefix}/share/doc/postgate/{text}"), "644");
    }
    put("etc/postgate/config.toml".to_owned(), "640");
    files
}

#[test]
fn make_install_puts_everything_in_its_place() {
    folder("install");
    let place = install("install", "install", "/usr");
    assert_eq!(tree(&place), layout("usr"));

    let config = place.join("etc/postgate/config.toml");
    fs::write(&config, CONFIG).expect("it can be written");
    install("install", "install", "/usr");
    assert_eq!(
        fs::read_to_string(&config).expect("it is there"),
        CONFIG,
        "an installation over another keeps the configuration"
    );

    install("install", "uninstall", "/usr");
    let left: Vec<_> = tree(&place).into_keys().collect();
    assert_eq!(left, ["etc/postgate/config.toml"]);
}

#[test]
fn links_between_installed_documents_lead_somewhere() {
    folder("linked");
    let place = install("linked", "install", "/usr").join("usr/share/doc/postgate");
    let mut followed = 0;
    for name in tree(&place).keys().filter(|name| name.ends_with(".md")) {
        let page = place.join(name);
        for link in links(&fs::read_to_string(&page).expect("it is there")) {
            let target = page.with_file_name(&link);
            assert!(target.is_file(), "{name}: {link}");
            followed += 1;
        }
    }
    assert!(followed > 10, "only {followed} links");
}

/// Where the relative links of a page lead to.
fn links(page: &str) -> Vec<String> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|link| !link.is_empty() && !link.contains("://"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn make_install_goes_elsewhere_too() {
    folder("elsewhere");
    let place = install("elsewhere", "install", "/opt/postgate");
    assert_eq!(tree(&place), layout("opt/postgate"));
    for program in PROGRAMS {
        let unit = format!("opt/postgate/lib/systemd/system/postgate-{program}.service");
        let unit = fs::read_to_string(place.join(unit)).expect("it is there");
        let starts = format!("ExecStart=/opt/postgate/libexec/postgate/{program}\n");
        assert!(unit.contains(&starts), "{unit}");
    }
}

/// Where `make` finds and installs tools for cargo: beside what the lab keeps, if that can be, so
/// that they outlive a working copy.
fn tools() -> String {
    let kept = env::var("LAB_CACHE").unwrap_or_else(|_| "/var/cache/lab".to_owned());
    match rustix::process::getuid().is_root() {
        true => format!("TOOLS={kept}"),
        false => "TOOLS=target/tools".to_owned(),
    }
}

/// Whether there is a tool for cargo. Where `CI=true`, `make` fetches it; elsewhere stderr says that
/// there is none.
fn has_for_cargo(name: &str) -> bool {
    let tools = tools();
    let folder = Path::new(REPO).join(tools.trim_start_matches("TOOLS="));
    let is_here = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut is_here = is_here.map(|entry| entry.path().join("bin").join(name));
    let found =
        has(name) || is_here.any(|path| path.exists()) || env::var("CI").as_deref() == Ok("true");
    if !found {
        skipped(&format!("no {name}; with CI=true it is fetched"));
    }
    found
}

/// A target folder with programs as cargo builds them for a package: without what debuggers need.
fn release() -> &'static Path {
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    RELEASE.get_or_init(|| {
        let target = folder("package");
        let release = target.join("release");
        fs::create_dir(&release).expect("a folder");
        for program in PROGRAMS {
            run(Command::new("strip")
                .arg("-o")
                .arg(release.join(program))
                .arg(built().join(program)));
        }
        target
    })
}

/// Two packages of what cargo has built, the second of a higher version.
fn packages() -> Option<&'static [PathBuf; 2]> {
    static PACKAGES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    if !has("dpkg-deb") {
        skipped("not on Debian");
        return None;
    }
    has_for_cargo("cargo-deb").then(|| PACKAGES.get_or_init(pack))
}

fn pack() -> [PathBuf; 2] {
    [1, 2].map(|revision| {
        let package = release().join(format!("{revision}.deb"));
        let flags = format!(
            "DEB_FLAGS=--no-build --no-strip --fast -Z gz --compress-system --quiet \
             --deb-revision {revision} --output {}",
            package.display()
        );
        run(make(&["deb", &flags, &tools()]).env("CARGO_TARGET_DIR", release()));
        package
    })
}

on_each_system! {
    the_package_is_installed_used_upgraded_removed_and_purged,
    metrics_have_sockets_of_their_own,
    the_programs_run_as_the_first_process,
}

fn the_package_is_installed_used_upgraded_removed_and_purged(system: System) {
    let Some([old, new]) = packages() else {
        return;
    };
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    // What the lab was booted with gives way.
    lab.sh("systemctl enable --now postgate-socketmap.socket
        make -s -C /mnt/postgate uninstall
        test -z \"$(systemctl list-units --all --no-legend 'postgate-*')\"
        test ! -L /etc/systemd/system/sockets.target.wants/postgate-socketmap.socket
        rm -rf /etc/postgate
        groupdel postgate");
    dpkg(&lab, old);
    installed(&lab);
    used(&lab);
    upgraded(&lab, new);
    upgraded_over_a_bad_configuration(&lab, new);
    removed(&lab, new);
    purged(&lab);
    lab.sh("make -s -C /mnt/postgate install BUILD=/mnt/built");
}

/// The same files, pages compressed and programs without what debuggers need.
#[test]
fn the_package_is_like_make_install() {
    let Some([package, _]) = packages() else {
        return;
    };
    let unpacked = folder("unpacked");
    run(Command::new("dpkg-deb")
        .arg("-x")
        .args([package, &unpacked]));
    folder("beside");
    let installed = install("beside", "install", "/usr");
    let mut files = BTreeMap::new();
    for (name, what) in tree(&unpacked) {
        let is_text = name.starts_with("usr/lib/") || name.contains("config.toml");
        if is_text {
            let [packed, plain] = [&unpacked, &installed]
                .map(|folder| fs::read_to_string(folder.join(&name)).expect("it is there"));
            assert_eq!(packed, plain, "{name}");
        }
        files.insert(name.trim_end_matches(".gz").to_owned(), what);
    }
    assert!(files.remove("usr/share/doc/postgate/copyright").is_some());
    assert_eq!(files, layout("usr"));
    let maintainer = run(Command::new("dpkg-deb")
        .arg("-f")
        .arg(package)
        .arg("Maintainer"));
    assert_eq!(maintainer.trim(), env!("CARGO_PKG_AUTHORS"));
}

/// Installs a package; returns what was said.
fn dpkg(lab: &Lab, package: &Path) -> String {
    fs::copy(package, lab.path("/var/tmp/postgate.deb")).expect("it can be copied");
    // Images of containers leave out manual pages.
    lab.sh("dpkg --path-include='/usr/share/*' -i /var/tmp/postgate.deb 2>&1")
}

/// Nothing runs or will run, and the group can read the configuration.
fn installed(lab: &Lab) {
    assert_eq!(config_mode(lab), "root:postgate 640");
    assert_eq!(units(lab, "list-unit-files --state=enabled"), "");
    assert_eq!(units(lab, "list-units --all"), "");
    lab.sh("man=/usr/share/man; test -e $man/man8/postgate-policy.8.gz -a -e $man/man5/postgate.toml.5.gz");
    assert_eq!(lab.sh("postgate-socketmap --check"), "ok\n");
}

fn config_mode(lab: &Lab) -> String {
    lab.sh(&format!("stat -c '%U:%G %a' {CONFIG_PATH}"))
        .trim()
        .to_owned()
}

/// What systemd says of our units, which is nothing with status 1 where there are none.
fn units(lab: &Lab, verb: &str) -> String {
    let script = format!("systemctl --no-legend --plain {verb} 'postgate-*'");
    let said = lab.run(&["bash", "-c", &script]);
    assert_eq!(said.err, "", "{script}");
    said.out
}

const SOCKETS: &str =
    "postgate-socketmap.socket postgate-tcp-lookup@9001.socket postgate-policy.socket";

fn used(lab: &Lab) {
    lab.write(CONFIG_PATH, CONFIG);
    lab.sh(&format!("systemctl enable --now {SOCKETS} 2>&1"));
    let postmap = |table: &str| lab.sh(&format!("postmap -q somebody@lab.test {table}"));
    assert_eq!(
        postmap(&format!("socketmap:unix:{SOCKETMAP}:echo")),
        "somebody@lab.test\n"
    );
    assert_eq!(postmap("tcp:127.0.0.1:9001"), "somebody@lab.test\n");
}

fn main_pid(lab: &Lab, program: &str) -> u32 {
    lab.sh(&format!(
        "systemctl show -p MainPID --value postgate-{program}.service"
    ))
    .trim()
    .parse()
    .expect("a number")
}

fn upgraded(lab: &Lab, package: &Path) {
    let before = main_pid(lab, "socketmap");
    assert_ne!(before, 0);
    assert_eq!(main_pid(lab, "policy"), 0, "nobody has asked");

    let over = AtomicBool::new(false);
    let (counts, postfix) = thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|asker| {
                let over = &over;
                scope.spawn(move || stream_of_lookups(lab, over, asker))
            })
            .collect();
        let postfix = scope.spawn(|| {
            lab.sh(&format!(
                "rm -f /run/over; n=0
                until [ -e /run/over ]; do
                    n=$((n + 1))
                    said=$(postmap -q key$n@lab.test socketmap:unix:{SOCKETMAP}:echo 2>&1)
                    [ \"$said\" = key$n@lab.test ] || echo \"failed: $said\"
                done
                echo asked $n"
            ))
        });
        // The same version over itself, too.
        dpkg(lab, package);
        dpkg(lab, package);
        lab.write("/run/over", "");
        over.store(true, Ordering::Relaxed);
        let counts: Vec<_> = asking
            .into_iter()
            .map(|asker| asker.join().expect("it ends"))
            .collect();
        (counts, postfix.join().expect("it ends"))
    });
    let answered: u32 = counts.iter().map(|count| count.answered).sum();
    assert!(answered > 20, "only {answered} lookups");
    for count in counts {
        assert_eq!((count.refused, count.failed), (0, 0), "{count:?}");
    }
    assert!(!postfix.contains("failed"), "{postfix}");

    let version = lab.sh("dpkg-query -W -f '${Version}' postgate");
    assert_eq!(version, format!("{}-2", env!("CARGO_PKG_VERSION")));
    assert_ne!(main_pid(lab, "socketmap"), before, "the new one runs");
    assert_eq!(main_pid(lab, "policy"), 0, "what did not run does not run");
    lab.sh(&format!(
        "systemctl -q is-active {SOCKETS} && systemctl -q is-enabled {SOCKETS}"
    ));
    assert_eq!(config_mode(lab), "root:postgate 640");
    assert_eq!(lab.sh(&format!("cat {CONFIG_PATH}")), CONFIG);
}

/// The package is whole nevertheless, and what waits is answered once the file is mended.
fn upgraded_over_a_bad_configuration(lab: &Lab, package: &Path) {
    lab.write(CONFIG_PATH, &CONFIG.replace("http://", "htp://"));
    dpkg(lab, package);
    assert_eq!(
        lab.sh("dpkg-query -W -f '${db:Status-Abbrev}' postgate"),
        "ii "
    );
    let mut waiting = connect(lab).expect("the socket listens");
    lab.write(CONFIG_PATH, CONFIG);
    assert_eq!(waiting.ask("echo", "a").expect("a reply"), "OK a");
}

#[derive(Debug, Default)]
struct Count {
    answered: u32,
    refused: u32,
    failed: u32,
}

/// As Postfix does: a connection that is closed in its face is opened anew, once.
fn stream_of_lookups(lab: &Lab, over: &AtomicBool, asker: u32) -> Count {
    let mut count = Count::default();
    let mut kept = None;
    while !over.load(Ordering::Relaxed) {
        let key = format!("{asker}-{}@x", count.answered);
        let mut is_answered = false;
        for _ in 0..2 {
            let Some(mut stream) = kept.take().or_else(|| connect(lab).ok()) else {
                count.refused += 1;
                continue;
            };
            if let Ok(reply) = stream.ask("echo", &key) {
                is_answered = reply == format!("OK {key}");
                // Every other question over a connection of its own.
                kept = (count.answered % 2 == 0).then_some(stream);
                break;
            }
        }
        count.answered += u32::from(is_answered);
        count.failed += u32::from(!is_answered);
    }
    count
}

fn connect(lab: &Lab) -> io::Result<Peer> {
    Peer::connect(lab, Binary::Socketmap, "postgate-socketmap")
}

fn removed(lab: &Lab, package: &Path) {
    lab.sh("dpkg -r postgate 2>&1");
    assert_eq!(
        units(lab, "list-units --state=active,activating,failed"),
        ""
    );
    lab.sh(&format!(
        "test ! -e {SOCKETMAP} -a ! -e /usr/libexec/postgate"
    ));
    assert_eq!(lab.sh("ss -Hltn 'sport = :9001'"), "");
    assert_eq!(
        lab.sh("ps -eo args= | sed -n '/^.usr.libexec.postgate/p'"),
        ""
    );
    assert_eq!(lab.sh(&format!("cat {CONFIG_PATH}")), CONFIG);

    // Back again, it is what it was, but for the sockets.
    let said = dpkg(lab, package);
    assert_eq!(config_mode(lab), "root:postgate 640");
    lab.sh(&format!("systemctl -q is-enabled {SOCKETS}"));
    assert_eq!(units(lab, "list-units --state=active"), "");
    let start = said
        .lines()
        .find_map(|line| line.split_once("systemctl start "))
        .unwrap_or_else(|| panic!("{said}"));
    let mut closed: Vec<_> = start.1.split(' ').collect();
    let mut sockets: Vec<_> = SOCKETS.split(' ').collect();
    closed.sort_unstable();
    sockets.sort_unstable();
    assert_eq!(closed, sockets);
    lab.sh(&format!("systemctl start {}", start.1));
    used(lab);
    let said = dpkg(lab, package);
    assert!(!said.contains("systemctl start"), "{said}");
    lab.sh("systemctl start postgate-policy.service; test -d /var/lib/private/postgate-policy");
}

fn purged(lab: &Lab) {
    lab.sh("dpkg -P postgate 2>&1");
    assert_eq!(
        units(lab, "list-units --state=active,activating,failed"),
        ""
    );
    lab.sh("test ! -e /etc/postgate -a ! -e /usr/share/doc/postgate");
    assert_eq!(lab.sh("find /var/lib -name 'postgate-*'"), "");
    assert_eq!(lab.sh("find /etc/systemd -name 'postgate-*'"), "");
    lab.sh("getent group postgate");
}

fn metrics_have_sockets_of_their_own(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    let said = lab.sh("cd /usr/lib/systemd/system
        systemd-analyze verify --recursive-errors=yes 2>&1 postgate-metrics-*.socket");
    assert_eq!(said, "");
    for (program, port, other) in [
        ("tcp-lookup", 9464, "postgate-tcp-lookup@9001.socket"),
        ("socketmap", 9465, "postgate-socketmap.socket"),
        ("policy", 9466, "postgate-policy.socket"),
        ("dict", 9467, "postgate-dict.socket"),
        ("sasl", 9468, "postgate-sasl.socket"),
    ] {
        let metrics = format!("postgate-metrics-{program}.socket");
        let get = |page: &str| {
            lab.sh(&format!(
                "exec 3<>/dev/tcp/127.0.0.1/{port}
                printf 'GET /{page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
                timeout 20 cat <&3"
            ))
        };
        lab.sh(&format!("systemctl start {metrics} {other}"));
        // It starts with the first scrape, too.
        assert_eq!(main_pid(&lab, program), 0);
        for (page, expected) in [
            ("health", "alive"),
            ("ready", "ready"),
            ("metrics", "# TYPE postgate_"),
        ] {
            let answer = get(page);
            assert!(answer.starts_with("HTTP/1.1 200"), "{program}: {answer}");
            assert!(answer.contains(expected), "{program}: {answer}");
        }

        // Alone it is no service, and stays when there is none.
        lab.sh(&format!(
            "systemctl stop {other}
            systemctl stop postgate-{program}.service 2>/dev/null
            exec 3<>/dev/tcp/127.0.0.1/{port}"
        ));
        lab.until(&format!(
            "journalctl -u postgate-{program} --since @$(cat /run/began) | grep -q status=69"
        ));
        lab.sh(&format!(
            "systemctl -q is-active {metrics}; systemctl stop {metrics}"
        ));
    }
}

fn the_programs_run_as_the_first_process(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    let postmap = |table: &str| format!("postmap -q somebody@lab.test {table}");
    for (program, asks, expected) in [
        (
            "tcp-lookup",
            postmap("tcp:127.0.0.1:9100"),
            "somebody@lab.test",
        ),
        (
            "socketmap",
            postmap("socketmap:inet:127.0.0.1:9100:echo"),
            "somebody@lab.test",
        ),
        (
            "policy",
            "exec 3<>/dev/tcp/127.0.0.1/9100
            printf 'request=smtpd_access_policy\nsender=reject@lab.test\n\n' >&3
            head -n 1 <&3"
                .to_owned(),
            "action=REJECT you are on the list",
        ),
        (
            "sasl",
            // "user", NUL, "user", NUL, "locked".
            r"exec 3<>/dev/tcp/127.0.0.1/9100
            printf 'VERSION\t1\t0\nCPID\t1\nAUTH\t7\tPLAIN\tresp=%s\n' dXNlcgB1c2VyAGxvY2tlZA== >&3
            grep -m 1 FAIL <&3 | tr '\t' ' '"
                .to_owned(),
            "FAIL 7 user=user reason=wrong name or password",
        ),
    ] {
        let script = format!(
            "unshare --pid --fork --kill-child --mount-proc \
                /mnt/built/{program} --listen 127.0.0.1:9100 2>/tmp/said & outer=$!
            until [ \"$(ss -Hltn 'sport = :9100')\" ]; do kill -0 $outer || exit; sleep 0.05; done
            inner=$(pgrep -P $outer)
            awk '/^NSpid:/ {{ print \"process\", $NF }}' /proc/$inner/status
            {asks}
            kill -TERM $inner
            wait $outer
            echo status $?"
        );
        let said = lab.run(&["timeout", "30", "bash", "-c", &script]);
        let log = lab.sh("cat /tmp/said");
        assert_eq!(
            said.out,
            format!("process 1\n{expected}\nstatus 0\n"),
            "{program}: {said:?}\n{log}"
        );
        assert!(log.contains("stopped"), "{log}");
    }
}
