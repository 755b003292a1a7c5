//! Output of commands for people: tables, amounts, times. Only this crate writes to standard output, so that a closed
//! pipe is an error and not a panic.

pub mod progress;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use contracts::orders::v1::{EndReason, OrderStatus};
use indicatif::HumanCount;
use iso_currency::Currency;
use jiff::Timestamp;
use prost_reflect::{ReflectMessage, SerializeOptions};

/// Fields without a value are written too, so that the reader sees every field.
const JSON: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// Writes a line to standard output.
///
/// # Errors
///
/// Standard output is closed or cannot be written.
pub fn print_line(line: impl AsRef<str>) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{}", line.as_ref())?)
}

/// Whether the reader of standard output has closed the pipe.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// The exit code of a check.
pub fn exit_code(holds: bool) -> ExitCode {
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Writes a message as one line of canonical JSON.
///
/// # Errors
///
/// Standard output is closed or cannot be written.
pub fn print_json(message: &impl ReflectMessage) -> anyhow::Result<()> {
    print_line(serde_json::to_string(&json(message)?)?)
}

/// A message in canonical proto3 JSON.
///
/// # Errors
///
/// A value has no representation in JSON, such as a time out of range.
pub fn json(message: &impl ReflectMessage) -> anyhow::Result<serde_json::Value> {
    let value = serde_json::value::Serializer;
    Ok(message
        .transcode_to_dynamic()
        .serialize_with_options(value, &JSON)?)
}

/// `12,345`.
pub fn count(number: impl TryInto<u64>) -> String {
    HumanCount(number.try_into().unwrap_or_default()).to_string()
}

/// `1,234.56`, with the number of decimals of the currency.
pub fn amount(minor_units: i64, currency: &str) -> String {
    let decimals = Currency::from_code(currency)
        .and_then(|currency| currency.exponent())
        .unwrap_or(0);
    let scale = 10_u64.pow(u32::from(decimals));
    let sign = if minor_units < 0 { "-" } else { "" };
    let (major, minor) = (
        minor_units.unsigned_abs() / scale,
        minor_units.unsigned_abs() % scale,
    );
    let major = HumanCount(major);
    match decimals {
        0 => format!("{sign}{major}"),
        _ => format!(
            "{sign}{major}.{minor:0width$}",
            width = usize::from(decimals)
        ),
    }
}

/// `1,234.56 USD`.
pub fn money(minor_units: i64, currency: &str) -> String {
    format!("{} {currency}", amount(minor_units, currency))
}

/// Formats Unix milliseconds in UTC, with milliseconds.
pub fn time(unix_ms: i64) -> String {
    match Timestamp::from_millisecond(unix_ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S.%3f").to_string(),
        Err(_) => unix_ms.to_string(),
    }
}

/// Formats a time of an answer like [`time`]; empty when it is missing.
pub fn timestamp(time_of_answer: Option<&prost_types::Timestamp>) -> String {
    time_of_answer.map_or_else(String::new, |at| {
        time(at.seconds * 1000 + i64::from(at.nanos) / 1_000_000)
    })
}

/// `12 ms`, `3.4 s`.
pub fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// Formats milliseconds like [`duration`]; a negative duration is shown as 0.
pub fn duration_ms(ms: i64) -> String {
    duration(Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
}

/// `awaiting payment`; followed by the reason when there is one.
pub fn status(status: OrderStatus, reason: EndReason) -> String {
    let status = enum_text(status.as_str_name(), "ORDER_STATUS_");
    match reason {
        EndReason::Unspecified => status,
        reason => format!("{status}, {}", end_reason(reason)),
    }
}

/// `out of stock`.
pub fn end_reason(reason: EndReason) -> String {
    enum_text(reason.as_str_name(), "END_REASON_")
}

/// The name of an enum value as text, without the prefix that all values have.
pub fn enum_text(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix)
        .to_lowercase()
        .replace('_', " ")
}

/// Alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For text.
    Left,
    /// For numbers.
    Right,
}

/// A table with columns two spaces apart, indented by two.
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns. The title row is left out when all titles are empty.
    pub fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        let titles: Vec<String> = columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect();
        let has_titles = titles.iter().any(|title| !title.is_empty());
        Self {
            columns: columns.map(|(_, align)| align).into(),
            rows: if has_titles { vec![titles] } else { Vec::new() },
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, align), width) in row.iter().zip(&self.columns).zip(&widths) {
                line.push_str("  ");
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            let end = if number + 1 < self.rows.len() {
                "\n"
            } else {
                ""
            };
            write!(formatter, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        assert_eq!(money(15_085_609, "USD"), "150,856.09 USD");
        assert_eq!(amount(-5, "EUR"), "-0.05");
        assert_eq!(amount(1_234, "JPY"), "1,234");
        assert_eq!(amount(i64::MIN, "EUR"), "-92,233,720,368,547,758.08");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([("sku", Align::Left), ("pieces", Align::Right)]);
        table.row(["mug".into(), "2".into()]);
        table.row(["für".into(), "1,000".into()]);
        assert_eq!(
            table.to_string(),
            "  sku  pieces\n  mug       2\n  für   1,000"
        );
    }

    #[test]
    fn a_time_has_milliseconds() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14 22:13:20.123");
    }

    #[test]
    fn a_status_is_followed_by_its_reason() {
        assert_eq!(
            status(OrderStatus::AwaitingPayment, EndReason::Unspecified),
            "awaiting payment"
        );
        assert_eq!(
            status(OrderStatus::Rejected, EndReason::OutOfStock),
            "rejected, out of stock"
        );
    }
}
