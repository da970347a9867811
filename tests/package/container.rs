//! The Containerfile: read as a builder reads it, and what its image runs, run in the lab.

use std::fs;

use super::{CONFIG, PROGRAMS, REPO};
use crate::lab::{System, lab};

/// An instruction and its arguments.
type Instruction = (String, String);

/// The stages of the file, each from its FROM.
fn stages() -> Vec<Vec<Instruction>> {
    let text = fs::read_to_string(format!("{REPO}/Containerfile")).expect("a file");
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        .collect();
    let mut stages: Vec<Vec<Instruction>> = Vec::new();
    for line in lines.join("\n").replace("\\\n", " ").lines() {
        let (name, arguments) = line.trim().split_once(' ').expect("an instruction");
        let known = [
            "FROM",
            "WORKDIR",
            "COPY",
            "RUN",
            "USER",
            "EXPOSE",
            "HEALTHCHECK",
            "CMD",
        ];
        assert!(known.contains(&name), "{line}");
        if name == "FROM" {
            stages.push(Vec::new());
        }
        let stage = stages.last_mut().expect("FROM comes first");
        stage.push((name.to_owned(), arguments.trim().to_owned()));
    }
    stages
}

/// The arguments of the only such instruction of a stage.
fn only<'s>(stage: &'s [Instruction], name: &str) -> &'s str {
    let mut found = stage.iter().filter(|(instruction, _)| instruction == name);
    let (_, arguments) = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "two of {name}");
    arguments
}

/// The words of a list in JSON, each quoted for a shell.
fn words(list: &str) -> String {
    let words: Vec<String> = serde_json::from_str(list).expect("a list");
    let quoted = words
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_image_has_every_program_and_no_privileges() {
    let stages = stages();
    let [build, image] = &stages[..] else {
        panic!("{} stages", stages.len());
    };
    assert!(only(build, "FROM").ends_with(" AS build"));
    assert_eq!(only(build, "RUN"), "cargo build --release --locked");
    assert_eq!(only(build, "WORKDIR"), "/src");

    let copied: Vec<_> = only(image, "COPY").split_whitespace().collect();
    let built = PROGRAMS.map(|program| format!("/src/target/release/{program}"));
    let expected: Vec<_> = ["--from=build"]
        .into_iter()
        .chain(built.iter().map(String::as_str))
        .chain(["/usr/local/bin/"])
        .collect();
    assert_eq!(copied, expected);

    let (user, group) = only(image, "USER").split_once(':').expect("a group");
    for id in [user, group] {
        // Kubernetes cannot tell from a name that it is not root's.
        assert_ne!(id.parse::<u32>().expect("a number"), 0);
    }
}

/// Nothing that cargo needs is kept from the builder.
#[test]
fn the_context_leaves_out_what_is_built_only() {
    let ignored = fs::read_to_string(format!("{REPO}/.dockerignore")).expect("a file");
    let ignored: Vec<_> = ignored
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(ignored, ["/.git", "/target"]);
}

#[test]
fn what_the_image_runs_is_healthy_while_it_runs() {
    let stages = stages();
    let image = stages.last().expect("a stage");
    // The system that the image is made from.
    assert_eq!(only(image, "FROM"), "docker.io/library/debian:trixie-slim");
    let Some(lab) = lab(System::Debian13, CONFIG) else {
        return;
    };
    let (user, group) = only(image, "USER").split_once(':').expect("a group");
    let (_, check) = only(image, "HEALTHCHECK").split_once(" CMD ").expect("CMD");
    lab.write("/run/check", &format!("exec {}", words(check)));
    lab.write("/run/image.toml", CONFIG);
    let script = format!(
        "programs=$(cd /mnt/built && echo {programs})
        (cd /mnt/built && install -t /usr/local/bin $programs)
        as_user='setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs
            --inh-caps=-all --bounding-set=-all env -i PATH=/usr/local/bin:/usr/bin:/bin'
        bash /run/check 2>/dev/null && echo healthy before it runs
        unshare --pid --fork --kill-child --mount-proc sh -c '
            mount --bind /run/image.toml /etc/postgate/config.toml
            exec \"$@\"' sh $as_user {command} 2>/tmp/said & outer=$!
        until $as_user bash /run/check 2>/dev/null; do kill -0 $outer || exit; sleep 0.05; done
        inner=$(pgrep -P $outer)
        awk '/^(NSpid|Uid|Gid|Groups|CapBnd|CapEff):/ {{ print $1, $NF }}' /proc/$inner/status
        postmap -q somebody@lab.test socketmap:inet:127.0.0.1:9002:echo
        kill -TERM $inner
        wait $outer
        echo status $?
        bash /run/check 2>/dev/null && echo healthy after it ran
        cd /usr/local/bin && rm $programs",
        programs = PROGRAMS.join(" "),
        command = words(only(image, "CMD")),
    );
    let said = lab.run(&["timeout", "60", "bash", "-c", &script]);
    let log = lab.sh("cat /tmp/said");
    let expected = format!(
        "Uid: {user}\nGid: {group}\nGroups: Groups:\nNSpid: 1\n\
         CapEff: 0000000000000000\nCapBnd: 0000000000000000\nsomebody@lab.test\nstatus 0\n"
    );
    assert_eq!(said.out, expected, "{said:?}\n{log}");
}
