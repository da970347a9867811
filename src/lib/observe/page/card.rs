//! One table on the page.

use std::sync::Arc;

use super::curve::curve;
use super::figures::{Now, counted, number, seconds};
use super::html::Html;
use crate::observe::history::{History, Recent, Windows};
use crate::observe::meter::{Counts, Meter};
use crate::observe::state::{CacheState, State, TargetState};

/// What is known of one table, or of the requests that reached none.
pub(super) struct Card<'p> {
    meter: Arc<Meter>,
    /// Absent for what reached no table.
    state: Option<&'p State>,
    recent: Recent,
    limits: Vec<(&'p str, Windows<u64>)>,
}

impl<'p> Card<'p> {
    pub(super) fn new(meter: Arc<Meter>, state: Option<&'p State>, history: &History) -> Self {
        let names = state.map_or(&[][..], |state| &state.limits).iter();
        let limits = names.map(|name| {
            let now = meter.limit(name).exceeded.get();
            (name.as_str(), history.exceeded(&meter, name, now))
        });
        Self {
            limits: limits.collect(),
            recent: history.of(&meter),
            state,
            meter,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.state.map_or("(no table)", |state| &state.table)
    }

    /// Returns whether it has had any request.
    pub(super) fn is_used(&self) -> bool {
        self.recent.windows.start.all() > 0
    }

    /// Returns what is wrong at this moment.
    pub(super) fn concerns(&self) -> Vec<String> {
        let mut concerns = Vec::new();
        if let (down @ 1.., all) = self.down() {
            /// A list may have any number of targets.
            const NAMED: usize = 3;
            let targets = self.state.map_or(&[][..], |state| &state.targets);
            let names = targets.iter().filter(|target| !target.is_up());
            let names: Vec<_> = names.take(NAMED).map(|target| &*target.name).collect();
            let names = names.join(", ");
            concerns.push(format!("targets down: {names} ({down} of {all})"));
        }
        let (failed, all) = {
            let minute = &self.recent.windows.minute;
            (minute.failed(), minute.all())
        };
        if failed > 0 {
            let why = self.meter.last_failure();
            let why = why.map_or_else(String::new, |(reason, _)| format!(", last: {reason}"));
            concerns.push(format!(
                "{} of {} failed in the last minute{why}",
                number(failed),
                counted(all, "request", "requests"),
            ));
        }
        for (name, windows) in self.limits.iter().filter(|(_, windows)| windows.minute > 0) {
            let times = counted(windows.minute, "time", "times");
            concerns.push(format!(
                "limit \u{201c}{name}\u{201d} reached {times} in the last minute"
            ));
        }
        concerns
    }

    /// Returns how many targets are down, and how many there are.
    fn down(&self) -> (usize, usize) {
        let targets = self.state.map_or(&[][..], |state| &state.targets);
        let down = targets.iter().filter(|target| !target.is_up());
        (down.count(), targets.len())
    }

    pub(super) fn write(&self, html: &mut Html, number: usize, now: Now) {
        let number = number.to_string();
        html.raw("<article id=\"table-")
            .text(&number)
            .raw("\" aria-labelledby=\"name-");
        html.text(&number)
            .raw("\">\n<header><h2 id=\"name-")
            .text(&number)
            .raw("\"><bdi>");
        html.text(self.name()).raw("</bdi></h2>");
        match self.down() {
            (0, 0) => {}
            (0, _) => drop(html.raw(" <span class=\"up\">up</span>")),
            (down, all) if down == all => drop(html.raw(" <span class=\"down\">down</span>")),
            (down, all) => {
                html.raw(" <span class=\"down\">")
                    .text(&down.to_string())
                    .raw(" of ");
                html.text(&all.to_string()).raw(" down</span>");
            }
        }
        html.raw("</header>\n");
        curve(html, &self.recent.minutes);
        self.write_figures(html);
        self.write_state(html, now);
        html.raw("</article>\n");
    }

    fn write_figures(&self, html: &mut Html) {
        let windows = self.recent.windows.in_order();
        html.raw(
            "<table>\n<thead><tr><th scope=\"col\">requests</th><th scope=\"col\">last minute</th>",
        );
        html.raw(
            "<th scope=\"col\">last hour</th><th scope=\"col\">since start</th></tr></thead>\n",
        );
        html.raw("<tbody>\n<tr class=\"sum\"><th scope=\"row\">all</th>");
        cells(html, windows.map(|counts| number(counts.all())));
        for (at, outcome) in self.meter.outcomes().into_iter().enumerate() {
            let counts = windows.map(|counts| counts.requests()[at]);
            // As in the metrics: most tables have no writes, and never do anything.
            if outcome == "done" && counts == [0; 3] {
                continue;
            }
            html.raw("<tr><th scope=\"row\">")
                .text(outcome)
                .raw("</th>");
            for count in counts {
                let is_bad = Counts::is_failure(at) && count > 0;
                html.raw(if is_bad {
                    "<td class=\"down\">"
                } else {
                    "<td>"
                });
                html.text(&number(count)).raw("</td>");
            }
            html.raw("</tr>\n");
        }
        html.raw("</tbody>\n<tbody>\n");
        for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
            html.raw("<tr><th scope=\"row\">").text(name).raw("</th>");
            cells(html, windows.map(|counts| seconds(counts.quantile(share))));
        }
        html.raw("</tbody>\n");
        if !self.limits.is_empty() {
            html.raw("<tbody>\n");
            for (name, windows) in &self.limits {
                html.raw("<tr><th scope=\"row\">limit <bdi>")
                    .text(name)
                    .raw("</bdi> reached</th>");
                cells(html, windows.in_order().map(number));
            }
            html.raw("</tbody>\n");
        }
        html.raw("</table>\n");
    }

    fn write_state(&self, html: &mut Html, now: Now) {
        html.raw("<dl>\n");
        if let Some(state) = self.state {
            html.raw("<dt>Calls under way</dt><dd>");
            html.text(&number(state.in_flight as u64)).raw("</dd>\n");
            if let Some(cache) = &state.cache {
                write_cache(html, cache);
            }
            if !state.targets.is_empty() {
                write_targets(html, &state.targets, now);
            }
        }
        html.raw("<dt>Last failure</dt><dd>");
        match self.meter.last_failure() {
            None => drop(html.raw("none")),
            Some((reason, at)) => {
                html.text(&reason.to_string()).raw(", ");
                now.moment(html, at);
            }
        }
        html.raw("</dd>\n</dl>\n");
    }
}

/// Adds the rest of a row.
fn cells(html: &mut Html, texts: [String; 3]) {
    for text in texts {
        html.raw("<td>").text(&text).raw("</td>");
    }
    html.raw("</tr>\n");
}

fn write_cache(html: &mut Html, cache: &CacheState) {
    let CacheState {
        hits,
        misses,
        shared,
        stale,
        ..
    } = *cache;
    let answered = hits + shared + stale;
    html.raw("<dt>Cache</dt><dd>");
    html.text(&counted(cache.entries as u64, "answer", "answers"));
    // Rounded down: of a hundred percent all are answered.
    if let Some(percent) = (answered * 100).checked_div(answered + misses) {
        html.raw("; ")
            .text(&percent.to_string())
            .raw(" % of requests answered from it");
    }
    html.raw(" <small>(");
    for (count, kind) in [
        (hits, "hit, "),
        (misses, "miss, "),
        (shared, "shared, "),
        (stale, "stale"),
    ] {
        html.text(&number(count)).raw(" ").raw(kind);
    }
    html.raw(")</small></dd>\n");
}

fn write_targets(html: &mut Html, targets: &[TargetState], now: Now) {
    html.raw("<dt>Targets</dt><dd><ul>\n");
    for target in targets {
        html.raw("<li><bdi>").text(&target.name).raw("</bdi> ");
        match target.down_since {
            None => drop(html.raw("<span class=\"up\">up</span>")),
            Some(since) => {
                html.raw("<span class=\"down\">down since</span> ");
                now.moment(html, since);
            }
        }
        html.raw("</li>\n");
    }
    html.raw("</ul></dd>\n");
}
