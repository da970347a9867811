//! Secrets from systemd.

use super::{CONFIG, ask, asking, drop_in, messages, refused, until_said};
use crate::lab::{System, lab, on_each_system};

on_each_system! {
    a_credential_comes_from_systemd,
    a_secret_is_renewed_by_reload_or_restart,
}

fn a_credential_comes_from_systemd(system: System) {
    let token = r#"
        [socketmap.token]
        target = "http://127.0.0.1:8080/token"
        auth-token = { credential = "api-token" }
        [log]
        level = "debug"
    "#;
    let config = format!("{CONFIG}{token}");
    let Some(lab) = lab(system, &config) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let mut postfix = asking(&lab, "token", "x");
    refused(&lab, "socketmap", 1);
    assert!(messages(&lab, "socketmap").contains("api-token"));

    lab.sh("(umask 077; echo s3cret-t0ken > /etc/postgate/secret)");
    drop_in(
        &lab,
        "socketmap",
        "LoadCredential=api-token:/etc/postgate/secret",
    );
    assert_eq!(postfix.receive().expect("a reply"), "OK s3cret-t0ken");
    assert!(!messages(&lab, "socketmap").contains("s3cret"));
}

fn a_secret_is_renewed_by_reload_or_restart(system: System) {
    let config = r#"
        [socketmap.unit]
        target = "http://127.0.0.1:8080/token"
        auth-token = { credential = "api-token" }
        [socketmap.file]
        target = "http://127.0.0.1:8080/token"
        auth-token = { file = "/etc/postgate/secret" }
        [policy.main]
        target = "http://127.0.0.1:8080/policy"
        auth-token = { credential = "api-token" }
    "#;
    let Some(lab) = lab(system, config) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let write = |secret: &str| {
        lab.sh(&format!(
            "echo {secret} > /etc/postgate/secret
            chgrp postgate /etc/postgate/secret; chmod 640 /etc/postgate/secret
            printf 'sealed-{secret}' | systemd-creds encrypt --name=api-token - - \\
                > /etc/systemd/system/postgate-socketmap.service.d/sealed 2>/dev/null"
        ));
    };
    drop_in(
        &lab,
        "socketmap",
        "LoadCredentialEncrypted=api-token:/etc/systemd/system/postgate-socketmap.service.d/sealed",
    );
    write("one");
    assert_eq!(ask(&lab, "unit", "x"), "OK sealed-one");
    assert_eq!(ask(&lab, "file", "x"), "OK one");
    write("two");
    lab.sh("systemctl reload postgate-socketmap");
    until_said(&lab, "postgate-socketmap", "reload: done");
    // systemd copies credentials when the program starts.
    assert_eq!(ask(&lab, "file", "x"), "OK two");
    assert_eq!(ask(&lab, "unit", "x"), "OK sealed-one");
    lab.sh("systemctl restart postgate-socketmap");
    assert_eq!(ask(&lab, "unit", "x"), "OK sealed-two");

    // An operator asks with the unit's credentials.
    assert_eq!(lab.sh("postgate-socketmap --check 2>/dev/null"), "ok\n");
    let alone = lab.run(&["postgate-socketmap", "--query", "unit", "x"]);
    assert_eq!(alone.status, Some(78), "{alone:?}");
    let asked = lab.sh("systemd-run -qP -p DynamicUser=yes -p Group=postgate \
        -p LoadCredential=api-token:/etc/postgate/secret postgate-socketmap --query unit x");
    assert_eq!(asked, "two\n");
    let asked = lab.sh("systemd-run -qP -p DynamicUser=yes -p Group=postgate \
        -p LoadCredentialEncrypted=api-token:/etc/systemd/system/postgate-socketmap.service.d/sealed \
        postgate-policy --query main <<< sender=reject@elsewhere.test");
    assert_eq!(asked, "REJECT you are on the list\n");
}
