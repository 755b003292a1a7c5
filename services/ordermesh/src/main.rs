//! ordermesh: every service, the loader, the demo, and the tools to look inside, in one binary.

mod command_line;
mod completions;
mod metrics;
mod serve;

use std::process::ExitCode;

use chassis::config::{self, EXIT_BAD_VALUE};
use observability::Settings;

use ::cli::{audit, doctor, events, order, sandbox, status, stock, topics};
use command_line::{Cli, Command};
use load::{check, demo};

fn main() -> ExitCode {
    let cli: Cli = match config::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(invalid) => {
            let message = invalid.message.trim_end();
            // Help is an answer, a bad flag is not.
            if invalid.exit_code == 0 {
                return ending(terminal::say(message).map(|()| ExitCode::SUCCESS));
            }
            eprintln!("{message}");
            return ExitCode::from(invalid.exit_code);
        }
    };
    let settings = match telemetry(&cli.command) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(EXIT_BAD_VALUE);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the system gives no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let telemetry = match observability::init(&settings) {
            Ok(telemetry) => telemetry,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(EXIT_BAD_VALUE);
            }
        };
        let code = ending(run(cli.command).await);
        telemetry.shutdown().await;
        code
    });
    // A client of a broker that is gone can hang when it is dropped: nothing waits for it.
    runtime.shutdown_background();
    code
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => return serve::run(*args).await,
        Command::Topics(topics::Command::Apply(args)) => topics::apply(&args).await?,
        Command::Order(command) => order::run(command).await?,
        Command::Stock(command) => stock::run(command).await?,
        Command::Events(events::Command::Tail(args)) => events::tail(args).await?,
        Command::Sandbox(command) => sandbox::run(command).await?,
        Command::Completions(args) => completions::completions(&args)?,
        Command::Metrics(_) => metrics::run()?,
        Command::Load(args) => return load::run(args).await,
        Command::Check(args) => return check::run(args).await,
        Command::Audit(args) => return audit::run(*args).await,
        Command::Doctor(args) => return doctor::run(args).await,
        Command::Status(args) => return status::run(args).await,
        Command::Demo(args) => return demo::run(args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Services log what they do; a tool speaks by its answer, and logs only what is wrong.
fn telemetry(command: &Command) -> anyhow::Result<Settings> {
    let mut settings = Settings::from_env("ordermesh")?;
    let mut is_tool = true;
    if let Command::Serve(args) = command {
        is_tool = false;
        settings.service = args.service_name();
        settings.instance = Some(args.instance_name());
    }
    if is_tool && std::env::var_os(observability::names::LOG).is_none() {
        "warn".clone_into(&mut settings.filter);
    }
    Ok(settings)
}

fn ending(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // Whoever reads our output has seen enough: `ordermesh events tail | head`.
    if terminal::is_unread(&error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    let is_input = error.chain().any(|cause| {
        cause.is::<::cli::BadInput>()
            || cause.is::<load::baskets::Error>()
            || cause
                .downcast_ref::<load::journal::Error>()
                .is_some_and(load::journal::Error::is_input)
    });
    if is_input {
        ExitCode::from(EXIT_BAD_VALUE)
    } else {
        ExitCode::FAILURE
    }
}
