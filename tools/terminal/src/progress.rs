//! Progress of a long command: a bar on a terminal, otherwise a line every two seconds.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::count;

const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
const STYLE: &str = "  {prefix:<10} {bar:32} {human_pos}/{human_len}  {msg}";

/// A progress display on standard error.
pub struct Progress {
    bar: ProgressBar,
    name: &'static str,
    started_at: Instant,
    /// Time of the last line; `None` on a terminal.
    last_plain: Option<Mutex<Instant>>,
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
            started_at: now,
            last_plain: (!is_terminal).then(|| Mutex::new(now)),
        }
    }

    /// Advances by one step.
    pub fn step(&self) {
        self.bar.inc(1);
        self.show();
    }

    /// Sets the number of finished steps.
    pub fn set_position(&self, position: usize) {
        self.bar.set_position(position as u64);
        self.show();
    }

    /// Shows a message, such as why the command waits.
    pub fn set_message(&self, note: &str) {
        self.bar.set_message(note.to_owned());
        if let Some(last) = &self.last_plain {
            self.print_plain(last, note);
        }
    }

    fn show(&self) {
        let message = format!("{}/s", count(self.per_second()));
        match &self.last_plain {
            Some(last) => self.print_plain(last, &message),
            None => self.bar.set_message(message),
        }
    }

    fn print_plain(&self, last: &Mutex<Instant>, message: &str) {
        let mut last = last.lock();
        if last.elapsed() >= PLAIN_INTERVAL {
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
        let seconds = self.started_at.elapsed().as_secs_f64();
        if seconds > 0.0 {
            (self.bar.position() as f64 / seconds) as u64
        } else {
            0
        }
    }
}

impl Drop for Progress {
    /// Removes the bar: the command prints a summary afterwards.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
