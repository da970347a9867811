//! The curve of the last hour: a bar for each minute, with the requests that failed at its foot.

use std::fmt::Write as _;

use super::figures::number;
use super::html::Html;
use crate::observe::meter::Counts;

/// The height of the picture. A minute is [`STEP`] wide.
const HEIGHT: u64 = 48;
const STEP: usize = 4;
const BAR: usize = 3;

/// Adds the curve of these minutes, the oldest first.
pub(super) fn curve(html: &mut Html, minutes: &[Counts]) {
    let most = minutes.iter().map(Counts::all).max().unwrap_or(0);
    let failed: u64 = minutes.iter().map(Counts::failed).sum();
    let all = bars(minutes, most, Counts::all);
    let width = (minutes.len() * STEP).to_string();
    html.raw("<figure>\n<svg viewBox=\"0 0 ")
        .text(&width)
        .raw(" ");
    html.text(&HEIGHT.to_string());
    html.raw("\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"");
    html.raw("Requests per minute, the last hour: at most ");
    html.text(&number(most))
        .raw("; ")
        .text(&number(failed))
        .raw(" failed\">\n");
    if !all.is_empty() {
        html.raw("<path class=\"all\" d=\"")
            .text(&all)
            .raw("\"/>\n");
    }
    if failed > 0 {
        let failed = bars(minutes, most, Counts::failed);
        html.raw("<path class=\"failed\" d=\"")
            .text(&failed)
            .raw("\"/>\n");
    }
    html.raw("</svg>\n<figcaption><span>an hour ago</span> <span>");
    match most {
        0 => html.raw("no request"),
        _ => html.raw("at most ").text(&number(most)).raw(" a minute"),
    };
    html.raw("</span> <span>now</span></figcaption>\n</figure>\n");
}

/// Returns the path of the bars. What is there at all can be seen.
fn bars(minutes: &[Counts], most: u64, of: fn(&Counts) -> u64) -> String {
    let mut path = String::new();
    for (at, minute) in minutes.iter().enumerate() {
        let count = of(minute);
        if count > 0 {
            let height = u128::from(count) * u128::from(HEIGHT) / u128::from(most);
            // Writing to a string does not fail.
            let _ = write!(
                path,
                "M{} {HEIGHT}h{BAR}v-{h}h-{BAR}z",
                at * STEP,
                h = height.max(1)
            );
        }
    }
    path
}
