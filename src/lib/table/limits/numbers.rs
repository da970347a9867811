//! The numbers of an account: fixed, or from the answer of one call for all limits that share it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;

use super::account::Account;
use crate::config::{self, Limit, MAX_NUMBER, RateSource};
use crate::http::answer;
use crate::limits::Rate;
use crate::outcome::{Failure, Outcome};
use crate::request::Request;
use crate::table::Asked;
use crate::table::calls::Calls;

/// The account that is asked about, in the request for its numbers.
const ACCOUNT: &str = "account";

/// The limits whose numbers are asked for, by their places. It is part of the request, so that the
/// cache keeps an answer for each account and each set of limits.
const LIMITS: &str = "limits";

/// The limits that share an account, and the answer with their numbers.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) account: &'a Account,
    /// The places of the limits in the table.
    pub(super) limits: Vec<usize>,
}

impl Group<'_> {
    fn request(&self) -> Request {
        let places: Vec<_> = self.limits.iter().map(usize::to_string).collect();
        let value = |text: &'static str, value| (Bytes::from_static(text.as_bytes()), value);
        Request {
            values: vec![
                value(ACCOUNT, Bytes::copy_from_slice(&self.account.bytes)),
                value(LIMITS, places.join(" ").into()),
            ],
            ..Request::default()
        }
    }
}

/// Asks for the numbers of each group, all at once, and returns the document of each, or its
/// outcome without one.
pub(super) async fn fetch(
    groups: &[Group<'_>],
    limits: &[Limit],
    calls: &Calls,
    asked: Asked,
) -> Vec<Result<String, Outcome>> {
    let asking = groups.iter().map(|group| {
        Box::pin(async move {
            let request = group.request();
            let outcome = calls.answer(&request, asked).await;
            // Again, since only a cache has checked it.
            match checked(outcome, limits, &request) {
                Outcome::Found(document) => Ok(document),
                outcome => Err(outcome),
            }
        })
    });
    all(asking.collect()).await
}

/// Returns the outcome of a call for numbers: a failure where a number of the limits that it is for
/// cannot be read.
pub fn check(outcome: Outcome, endpoint: &config::Endpoint, request: &Request) -> Outcome {
    checked(outcome, &endpoint.limits, request)
}

fn checked(outcome: Outcome, limits: &[Limit], request: &Request) -> Outcome {
    let Outcome::Found(document) = &outcome else {
        return outcome;
    };
    let places = std::str::from_utf8(request.value(LIMITS).unwrap_or_default());
    let places = places.unwrap_or_default().split(' ');
    let asked = places.filter_map(|place| limits.get(place.parse::<usize>().ok()?));
    match answer::numbers(document, asked.flat_map(pointers)) {
        Ok(_) => outcome,
        Err(failure) => Outcome::Temporary(failure),
    }
}

fn pointers(limit: &Limit) -> impl Iterator<Item = &str> {
    limit.rates.iter().filter_map(|(_, source)| match source {
        RateSource::Pointer(pointer) => Some(pointer.as_str()),
        RateSource::Fixed(_) => None,
    })
}

/// Returns the rates of a limit; those that are JSON Pointers are read from the document.
///
/// Windows of the fallback are counted as well, without a number: their history is there when they
/// are needed.
pub(super) fn rates(limit: &Limit, document: Option<&str>) -> Result<Vec<Rate>, Failure> {
    let mut found = match document {
        Some(document) => answer::numbers(document, pointers(limit))?,
        None => Vec::new(),
    }
    .into_iter();
    let mut rates: Vec<_> = limit
        .rates
        .iter()
        .map(|(window, source)| {
            let most = match source {
                RateSource::Fixed(most) => Some(*most),
                RateSource::Pointer(_) => found.next().flatten().map(|most| most.min(MAX_NUMBER)),
            };
            Rate {
                window: *window,
                most,
            }
        })
        .collect();
    let others = limit.fallback.iter().flatten().map(|(window, _)| *window);
    add_windows(&mut rates, others);
    Ok(rates)
}

/// Returns the rates of a limit for when its numbers are unknown, if it has any.
pub(super) fn fallback(limit: &Limit) -> Option<Vec<Rate>> {
    let fallback = limit.fallback.as_ref()?;
    let rates = fallback.iter().map(|(window, most)| Rate {
        window: *window,
        most: Some(*most),
    });
    let mut rates = rates.collect();
    add_windows(&mut rates, limit.rates.iter().map(|(window, _)| *window));
    Some(rates)
}

/// Adds windows that are only counted.
fn add_windows(rates: &mut Vec<Rate>, windows: impl Iterator<Item = std::time::Duration>) {
    for window in windows {
        if rates.iter().all(|rate| rate.window != window) {
            rates.push(Rate { window, most: None });
        }
    }
}

/// Drives futures together, and returns their results in the same order.
async fn all<T, F: Future<Output = T>>(mut futures: Vec<Pin<Box<F>>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    results.into_iter().flatten().collect()
}
