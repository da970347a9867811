//! `--query`: asks once as the mail server would, and prints the answer as postmap(1) does.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use bytes::BytesMut;

use super::secret;
use crate::observe::verbose;
use crate::outcome::Outcome;
use crate::protocol::facts::PickedBy;
use crate::protocol::{Protocol, Step, Tag, sayable};
use crate::request::Request;
use crate::store::StoreError;
use crate::table::endpoint::Endpoint;
use crate::table::routes::Routes;
use crate::table::{Asked, Rules};

/// The answer to a query.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The text for standard output: a value, or the action of any outcome.
    pub(crate) text: Option<String>,
    /// The outcome, which decides the exit status.
    pub(crate) outcome: Outcome,
}

/// Asks, or returns a message about a mistake in the query.
pub(crate) async fn ask<P: Protocol>(
    routes: &Routes,
    name: &str,
    arguments: &[OsString],
) -> Result<Answer, String>
where
    Endpoint: Rules<P::Rules>,
{
    let facts = P::FACTS;
    let table = routes.named(name.as_bytes());
    if table.is_none() && facts.picked_by == PickedBy::Socket {
        return Err(format!("there is no table {}.{name}", facts.name));
    }
    let unknown = P::Rules::default();
    let rules = table.map_or(&unknown, |table| table.rules());
    let arguments: Vec<_> = arguments.iter().map(|one| one.as_bytes()).collect();
    let step = match facts.secrets {
        [secret, ..] => {
            let key = arguments.first().copied().unwrap_or_default();
            with_secret::<P>(key, secret, rules).await?
        }
        [] => {
            let request = match P::question(name.as_bytes(), &arguments) {
                Some(request) => request?,
                None => read_request::<P>()?,
            };
            Step::Ask(Tag::default(), request)
        }
    };
    let outcome = match (step, table) {
        (Step::Ask(_, request), Some(table)) => table.preview(&request, Asked::now()).await,
        (Step::Answer(_, outcome), _) => outcome,
        _ => Outcome::Permanent(facts.unknown.into()),
    };
    let said = sayable::<P>(outcome.clone(), rules);
    if said != outcome {
        let name = facts.outcomes[said.number()];
        verbose::means(|| match said.failure() {
            Some(failure) => format!("{name}: {}", failure.reason),
            None => name.to_owned(),
        });
    }
    Ok(Answer {
        text: P::text(&said, rules),
        outcome: said,
    })
}

/// Returns why the store could not be asked, if the limits of this table needed it.
pub(crate) async fn store_fault(routes: &Routes, name: &str) -> Option<StoreError> {
    let counters = routes.named(name.as_bytes())?.counters()?;
    if counters.store.is_up() {
        return None;
    }
    // The answer came from memory, so the reason has to be asked for.
    counters.store.fault().await
}

/// Makes the request for a key and a secret, which is read here.
async fn with_secret<P: Protocol>(
    key: &[u8],
    name: &str,
    rules: &P::Rules,
) -> Result<Step, String> {
    let secret = secret::read(name)
        .await
        .map_err(|error| format!("the {name} cannot be read: {error}"))?;
    P::query(key, &secret, rules).ok_or_else(|| "this table cannot be asked".to_owned())
}

/// Reads a request as Postfix would send it. The empty line at its end may be missing.
fn read_request<P: Protocol>() -> Result<Request, String> {
    let mut input = Vec::new();
    std::io::stdin()
        .read_to_end(&mut input)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    if !input.ends_with(b"\n") {
        input.push(b'\n');
    }
    input.push(b'\n');
    let (mut protocol, _) = P::open(&P::Rules::default());
    match protocol.next_step(&mut BytesMut::from(input.as_slice())) {
        Step::Ask(_, request) => Ok(request),
        _ => Err("standard input must hold lines such as sender=user@example.com".to_owned()),
    }
}
