//! The report of refused lines: no line of a file is dropped silently.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::baskets::BasketFile;
use super::journal::{BasketResult, History};

const HEADER: [&str; 5] = ["file", "line", "basket_id", "sku", "reason"];

/// The file of `--report` must not be overwritten.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is another file of this load.
    #[error("--report {report} is the file of {flag}", report = report.display())]
    Used {
        /// The report.
        report: PathBuf,
        /// The flag that names the same file.
        flag: &'static str,
    },
    /// It has other content.
    #[error(
        "--report {report} exists and is no report of refused lines: name another file",
        report = report.display()
    )]
    Foreign {
        /// The report.
        report: PathBuf,
    },
}

/// Checks that the report overwrites neither the file of baskets, nor the journal, nor a file that is no report.
///
/// # Errors
///
/// See [`Error`]; or the file cannot be read.
pub fn check(report: &Path, file: &Path, journal: &Path) -> anyhow::Result<()> {
    let Ok(existing) = fs::metadata(report) else {
        return Ok(());
    };
    let id = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    for (flag, path) in [("--file", file), ("--journal", journal)] {
        if fs::metadata(path).is_ok_and(|used| id(&used) == id(&existing)) {
            let report = report.to_owned();
            return Err(Error::Used { report, flag }.into());
        }
    }
    if !existing.is_file() || existing.len() == 0 {
        return Ok(());
    }
    let first_line = || {
        let mut start = Vec::new();
        let mut file = BufReader::new(File::open(report)?);
        file.read_until(b'\n', &mut start)?;
        io::Result::Ok(start)
    };
    let context = || format!("cannot read the report {}", report.display());
    if first_line().with_context(context)?.trim_ascii_end() != HEADER.join(",").as_bytes() {
        let report = report.to_owned();
        return Err(Error::Foreign { report }.into());
    }
    Ok(())
}

/// Writes every refused line of the file: file, line, basket, product, reason.
///
/// # Errors
///
/// The report cannot be written.
pub fn write(path: &Path, file: &BasketFile, history: &History) -> anyhow::Result<()> {
    let context = || format!("cannot write the report {}", path.display());
    let mut writer = csv::Writer::from_path(path).with_context(context)?;
    writer.write_record(HEADER).with_context(context)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [file, journal, report, link] = ["a.csv", "journal", "report", "link"].map(path);
        fs::write(&file, "basket_id\n").unwrap();
        fs::write(&journal, "{}\n").unwrap();
        let refused = |report: &Path| {
            let error = check(report, &file, &journal).err()?;
            Some(error.to_string().replace(folder.path().to_str()?, ""))
        };
        assert_eq!(refused(&report), None, "it does not exist");
        fs::write(&report, "").unwrap();
        assert_eq!(refused(&report), None);
        fs::write(
            &report,
            "file,line,basket_id,sku,reason\na.csv,2,1,mug,no\n",
        )
        .unwrap();
        assert_eq!(refused(&report), None);
        assert_eq!(refused(Path::new("/dev/null")), None);

        for foreign in ["{}", "file,line\n", "\n"] {
            fs::write(&report, foreign).unwrap();
            assert_eq!(
                refused(&report).unwrap(),
                "--report /report exists and is no report of refused lines: name another file"
            );
        }
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(
            refused(&link).unwrap(),
            "--report /link is the file of --file"
        );
        assert_eq!(
            refused(&journal).unwrap(),
            "--report /journal is the file of --journal"
        );
    }
}
