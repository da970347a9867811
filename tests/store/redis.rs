//! The same histories, played to the script in a Redis.

use postgate::limits::memory::Memory;
use postgate::limits::{Decision, Question, Usage};
use tokio::runtime::{Builder, Runtime};

use crate::engines::Clocked;
use crate::model::{Engine, play};
use crate::server::Server;
use crate::support::{TABLE, runs, seed};

/// The script, with a clock that the test sets.
struct Redis<'s> {
    server: &'s Server,
    clocked: Clocked,
    runtime: Runtime,
    questions: usize,
}

impl<'s> Redis<'s> {
    fn new(server: &'s Server) -> Self {
        server.command("FLUSHALL");
        let runtime = Builder::new_current_thread().enable_all().build();
        Self {
            server,
            clocked: Clocked::new(server),
            runtime: runtime.expect("a runtime"),
            questions: 0,
        }
    }
}

impl Engine for Redis<'_> {
    fn decide(&mut self, question: &Question, now_ms: u64) -> Decision {
        self.questions += 1;
        if self.questions.is_multiple_of(50) {
            self.server.command("SCRIPT FLUSH");
        }
        let decision = self.clocked.decide(question, now_ms);
        self.runtime.block_on(decision).expect("an answer")
    }

    fn usage(&mut self, account: &str, now_ms: u64) -> Vec<Usage> {
        let usage = self.clocked.usage(TABLE, Some(account), now_ms);
        self.runtime.block_on(usage).expect("an answer")
    }

    fn reset(&mut self, account: &str) {
        let reset = self.clocked.engine.reset(TABLE, account);
        self.runtime.block_on(reset).expect("an answer");
    }
}

#[test]
fn redis_is_never_over_and_never_late() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    for history in 0..runs() / 400 {
        let mut redis = Redis::new(&server);
        play(
            seed() + history,
            true,
            &mut [&mut redis, &mut Memory::default()],
        );
    }
}
