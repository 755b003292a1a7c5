//! `ordermesh completions` and `ordermesh man-pages`: the files of an installation beside the binary.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use terminal::print_line;

use crate::command_line::Cli;

/// Arguments of `ordermesh completions`.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = "\
Examples:
  source <(ordermesh completions bash)
  ordermesh completions zsh > ~/.zfunc/_ordermesh
  ordermesh completions fish > ~/.config/fish/completions/ordermesh.fish")]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completion script.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn completions(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ordermesh", &mut script);
    print_line(String::from_utf8(script)?.trim_end())
}

/// Arguments of `ordermesh man-pages`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Example:
  ordermesh man-pages /usr/local/share/man/man1")]
pub struct ManPagesArgs {
    /// The folder; it gets one page for each command
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes a man page for each command.
///
/// # Errors
///
/// The folder cannot be written.
pub fn man_pages(args: &ManPagesArgs) -> anyhow::Result<()> {
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .with_context(|| format!("cannot write to {}", args.folder.display()))
}
