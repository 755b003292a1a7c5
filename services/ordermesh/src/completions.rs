//! `ordermesh completions`: what a shell needs to complete our command lines.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::command_line::Cli;
use terminal::say;

/// For which shell.
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

/// Prints the script.
///
/// # Errors
///
/// Nobody reads it.
pub fn completions(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ordermesh", &mut script);
    say(String::from_utf8(script)?.trim_end())
}
