//! The generated files of the dashboards, which are committed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::Dashboard;

/// Folder of the dashboards inside [`folder`]; Grafana provisions all of it.
pub const DASHBOARDS: &str = "dashboards";
/// The index of the panels.
pub const INDEX: &str = "PANELS.md";

/// A generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path inside [`folder`].
    pub path: PathBuf,
    /// Content.
    pub text: String,
}

impl File {
    /// Writes the file into `folder`.
    ///
    /// # Errors
    ///
    /// The folder or the file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join(&self.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, &self.text)
    }
}

/// The folder of Grafana in this project.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana")
}

/// All generated files.
pub fn rendered() -> Vec<File> {
    let dashboards = crate::all();
    let mut files: Vec<_> = dashboards
        .iter()
        .map(|dashboard| File {
            path: Path::new(DASHBOARDS).join(format!("{}.json", dashboard.name)),
            text: format!("{:#}\n", dashboard.json()),
        })
        .collect();
    files.push(File {
        path: INDEX.into(),
        text: index(&dashboards),
    });
    files
}

fn index(dashboards: &[Dashboard]) -> String {
    let mut text = String::from(
        "# Panels\n\nWhich panel answers which question. Written by `cargo run -p dashboards`; the panels are in\n\
         `observability/dashboards/src/boards/`.\n\n| dashboard | panel | question |\n|---|---|---|\n",
    );
    for dashboard in dashboards {
        for panel in dashboard.panels() {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                dashboard.title, panel.title, panel.question
            );
        }
    }
    text
}
