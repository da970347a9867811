//! The RPM package, by rpm's own tools: what is in it, and its whole life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use super::{
    CONFIG, CONFIG_PATH, REPO, SOCKETMAP, SOCKETS, config_mode, folder, has_for_cargo, layout,
    main_pid, make, release, run, tools, tree, units, used,
};
use crate::lab::{Lab, System, lab};
use crate::tool::tool;

/// Scripts of a package, by rpm's names for them.
const SCRIPTS: [(&str, &str); 4] = [
    ("PREIN", "pre-install"),
    ("POSTIN", "post-install"),
    ("PREUN", "pre-uninstall"),
    ("POSTUN", "post-uninstall"),
];

/// Two packages of what cargo has built, the second of a higher release, and rpm.
fn packages() -> Option<(&'static [PathBuf; 2], PathBuf)> {
    static PACKAGES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let rpm = tool("rpm", "rpm")?;
    has_for_cargo("cargo-generate-rpm").then(|| (PACKAGES.get_or_init(pack), rpm))
}

fn pack() -> [PathBuf; 2] {
    [1, 2].map(|number| {
        let package = release().join(format!("{number}.rpm"));
        let flags = format!(
            "RPM_FLAGS=--set-metadata 'release = \"{number}\"' --payload-compress gzip \
             --output {}",
            package.display()
        );
        run(make(&["rpm", "RPM_BUILD=", &flags, &tools()]).env("CARGO_TARGET_DIR", release()));
        package
    })
}

/// What rpm says of a package.
fn ask(rpm: &Path, package: &Path, format: &str) -> String {
    run(Command::new(rpm)
        .args(["-qp", "--queryformat", format])
        .arg(package))
}

#[test]
fn the_rpm_is_like_make_install() {
    let Some(([package, _], rpm)) = packages() else {
        return;
    };
    let format = "[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} \
                  %{FILEFLAGS:fflags}\n]";
    let mut files = BTreeMap::new();
    for line in ask(&rpm, package, format).lines() {
        let (name, rest) = line.split_once(' ').expect("a name");
        files.insert(name.trim_start_matches('/').to_owned(), rest.to_owned());
    }
    let mut expected = BTreeMap::new();
    for (name, what) in layout("usr") {
        // A script in place of a link.
        let mode = if what.starts_with("->") { "755" } else { &what };
        let rest = match name.as_str() {
            "etc/postgate/config.toml" => "root:postgate cn",
            name if name.contains("/share/") => "root:root d",
            _ => "root:root ",
        };
        expected.insert(name, format!("100{mode} {rest}"));
    }
    assert_eq!(files, expected);
    let said = ask(
        &rpm,
        package,
        "%{NAME} %{VERSION} %{RELEASE} %{LICENSE} %{VENDOR}",
    );
    let version = env!("CARGO_PKG_VERSION");
    let authors = env!("CARGO_PKG_AUTHORS");
    assert_eq!(said, format!("postgate {version} 1 MIT {authors}"));
}

#[test]
fn the_scripts_of_the_rpm_are_those_of_the_repository() {
    let Some(([package, _], rpm)) = packages() else {
        return;
    };
    for (tag, file) in SCRIPTS {
        let path = format!("{REPO}/units/rpm/{file}");
        let text = fs::read_to_string(&path).expect("a script");
        assert_eq!(
            ask(&rpm, package, &format!("%{{{tag}}}")).trim(),
            text.trim()
        );
        let program = ask(&rpm, package, &format!("%{{{tag}PROG}}"));
        assert_eq!(program, "/bin/sh");
        run(Command::new("sh").args(["-n", &path]));
    }
    let others = "%{PRETRANS}%{POSTTRANS}%{VERIFYSCRIPT}";
    assert_eq!(ask(&rpm, package, others), "(none)(none)(none)");
}

#[test]
fn the_rpm_goes_into_an_empty_root() {
    let Some(([package, _], rpm)) = packages() else {
        return;
    };
    if !rustix::process::getuid().is_root() {
        super::skipped("not root");
        return;
    }
    let root = folder("rpm-root");
    // Without the scripts, which need a shell.
    run(install(&rpm, &root, "-i").arg("--noscripts").arg(package));
    let mut files = tree(&root);
    files.retain(|name, _| !name.starts_with("var/lib/rpm/"));
    let mut expected = layout("usr");
    for what in expected.values_mut().filter(|what| what.starts_with("->")) {
        *what = "755".to_owned();
    }
    assert_eq!(files, expected);
    run(install(&rpm, &root, "-e").args(["--noscripts", "postgate"]));
    let left: Vec<_> = tree(&root)
        .into_keys()
        .filter(|name| !name.starts_with("var/lib/rpm/"))
        .collect();
    assert_eq!(left, [""; 0]);
}

/// rpm on a system of Debian's: its database is its own, and knows of no other package.
fn install(rpm: &Path, root: &Path, verb: &str) -> Command {
    let mut command = Command::new(rpm);
    command.arg("--root").arg(root);
    command.args([
        "--dbpath",
        "/var/lib/rpm",
        "--force-debian",
        "--nodeps",
        verb,
    ]);
    command
}

#[test]
fn the_rpm_is_installed_used_upgraded_and_erased() {
    let Some(([old, new], rpm)) = packages() else {
        return;
    };
    let Some(lab) = lab(System::Host, CONFIG) else {
        return;
    };
    // What the lab was booted with gives way.
    lab.sh("make -s -C /mnt/postgate uninstall; rm -rf /etc/postgate; groupdel postgate");
    let rpm = |verb: &str, what: &Path| {
        if what.exists() {
            fs::copy(what, lab.path("/var/tmp/postgate.rpm")).expect("it can be copied");
        }
        let what = if what.exists() {
            "/var/tmp/postgate.rpm"
        } else {
            "postgate"
        };
        let mut command = install(&rpm, Path::new("/"), verb);
        command.arg(what);
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .map(|word| word.to_str().expect("UTF-8"))
            .collect();
        lab.sh(&format!("{} 2>&1", words.join(" ")))
    };
    rpm("-i", old);
    assert_eq!(config_mode(&lab), "root:postgate 640");
    assert_eq!(units(&lab, "list-unit-files --state=enabled"), "");
    assert_eq!(units(&lab, "list-units --all"), "");
    assert_eq!(lab.sh("postgate-socketmap --check"), "ok\n");
    assert_eq!(rpm("-V", Path::new("")), "");
    used(&lab);
    upgraded(&lab, || rpm("-U", new));
    rpm("-e", Path::new(""));
    erased(&lab);
    lab.sh("make -s -C /mnt/postgate install BUILD=/mnt/built");
}

fn upgraded(lab: &Lab, upgrade: impl FnOnce() -> String) {
    let before = main_pid(lab, "socketmap");
    assert_ne!(before, 0);
    upgrade();
    assert_ne!(main_pid(lab, "socketmap"), before, "the new one runs");
    assert_eq!(main_pid(lab, "policy"), 0, "what did not run does not run");
    lab.sh(&format!(
        "systemctl -q is-active {SOCKETS} && systemctl -q is-enabled {SOCKETS}"
    ));
    assert_eq!(config_mode(lab), "root:postgate 640");
    assert_eq!(lab.sh(&format!("cat {CONFIG_PATH}")), CONFIG);
    used(lab);
}

fn erased(lab: &Lab) {
    assert_eq!(
        units(lab, "list-units --state=active,activating,failed"),
        ""
    );
    lab.sh(&format!(
        "test ! -e {SOCKETMAP} -a ! -e /usr/libexec/postgate -a ! -e /usr/share/doc/postgate"
    ));
    assert_eq!(lab.sh("find /etc/systemd -name 'postgate-*'"), "");
    assert_eq!(lab.sh(&format!("cat {CONFIG_PATH}.rpmsave")), CONFIG);
    lab.sh("getent group postgate");
}
