//! The report of refused lines: no line of a file is dropped silently.

use std::path::Path;

use anyhow::Context as _;

use super::baskets::BasketFile;
use super::journal::{BasketResult, History};

/// Writes every refused line of the file: file, line, basket, product, reason.
///
/// # Errors
///
/// The report cannot be written.
pub fn write(path: &Path, file: &BasketFile, history: &History) -> anyhow::Result<()> {
    let context = || format!("cannot write the report {}", path.display());
    let mut writer = csv::Writer::from_path(path).with_context(context)?;
    writer
        .write_record(["file", "line", "basket_id", "sku", "reason"])
        .with_context(context)?;
    for [line, basket, sku, reason] in refused_lines(file, history) {
        writer
            .write_record([file.name.as_str(), &line, &basket, &sku, &reason])
            .with_context(context)?;
    }
    writer.flush().with_context(context)
}

fn refused_lines(file: &BasketFile, history: &History) -> Vec<[String; 4]> {
    let mut refused = Vec::new();
    for basket in &file.baskets {
        let state = history.basket(&basket.id);
        for line in &basket.lines {
            let whole = match &state.result {
                Some(BasketResult::Refused { reason }) => {
                    Some(format!("the whole basket was refused: {reason}"))
                }
                _ => None,
            };
            if let Some(reason) = state.refused_lines.get(&line.number).cloned().or(whole) {
                refused.push([
                    line.number.to_string(),
                    basket.id.clone(),
                    line.sku.clone(),
                    reason,
                ]);
            }
        }
    }
    refused
}
