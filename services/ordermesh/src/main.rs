//! ordermesh: every service, the loader, the demo, and the tools to look inside, in one binary.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run services
    Serve(serve::Args),
    TopicsApply { prefix: String },
}

fn main() -> ExitCode {
    let cli: Cli = match chassis::config::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(invalid) => {
            eprintln!("{}", invalid.message);
            return ExitCode::from(invalid.exit_code);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let telemetry = runtime.block_on(async {
        observability::init(&observability::Settings::from_env("ordermesh").expect("settings"))
    });
    let args = match cli.command {
        Command::Serve(args) => args,
        Command::TopicsApply { prefix } => {
            let cluster = engine::Cluster { bootstrap: "127.0.0.1:19092".into(), prefix, partitions: 4 };
            println!("{:?}", runtime.block_on(engine::topics::apply(&cluster, 1)));
            return ExitCode::SUCCESS;
        }
    };
    let code = match runtime.block_on(serve::run(args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    };
    drop(telemetry);
    code
}
