//! Writes the dashboards and their index.

use std::io;

use dashboards::files;

fn main() -> io::Result<()> {
    let folder = files::folder();
    for file in files::rendered() {
        file.write(&folder)?;
    }
    Ok(())
}
