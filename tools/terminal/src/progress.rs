//! How far a long command has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::count;

const PLAIN_EVERY: Duration = Duration::from_secs(2);
const STYLE: &str = "  {prefix:<10} {bar:32} {human_pos}/{human_len}  {msg}";

/// A progress display on standard error.
pub struct Progress {
    bar: ProgressBar,
    name: &'static str,
    begun: Instant,
    /// When the last plain line was written; `None` on a terminal.
    plain: Option<Mutex<Instant>>,
}

impl Progress {
    /// A display of `total` steps.
    pub fn new(name: &'static str, total: usize) -> Self {
        let is_terminal = stderr().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(STYLE)
            .expect("the template is valid")
            .progress_chars("━╸─");
        let bar = ProgressBar::with_draw_target(Some(total as u64), target)
            .with_style(style)
            .with_prefix(name);
        let now = Instant::now();
        Self {
            bar,
            name,
            begun: now,
            plain: (!is_terminal).then(|| Mutex::new(now)),
        }
    }

    /// One more.
    pub fn step(&self) {
        self.bar.inc(1);
        self.show();
    }

    /// So many now.
    pub fn reach(&self, position: usize) {
        self.bar.set_position(position as u64);
        self.show();
    }

    /// Tells why it does not go on.
    pub fn note(&self, note: &str) {
        self.bar.set_message(note.to_owned());
        if let Some(last) = &self.plain {
            self.plain(last, note);
        }
    }

    fn show(&self) {
        let message = format!("{}/s", count(self.per_second()));
        match &self.plain {
            Some(last) => self.plain(last, &message),
            None => self.bar.set_message(message),
        }
    }

    fn plain(&self, last: &Mutex<Instant>, message: &str) {
        let mut last = last.lock().expect("nobody panics while holding it");
        if last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            let (position, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
            eprintln!(
                "  {:<10} {}/{}  {message}",
                self.name,
                count(position),
                count(total)
            );
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn per_second(&self) -> u64 {
        let seconds = self.begun.elapsed().as_secs_f64();
        if seconds > 0.0 {
            (self.bar.position() as f64 / seconds) as u64
        } else {
            0
        }
    }
}

impl Drop for Progress {
    /// The summary that follows says the rest.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
