//! ordermesh: all services, the load generator, the demo and the operator tools in one binary.

mod command_line;
mod completions;
mod metrics;
mod serve;

use std::process::ExitCode;

use chassis::config::{self, EXIT_BAD_VALUE};
use observability::Settings;

use ::cli::{audit, demo, doctor, events, order, sandbox, status, stock, topics};
use command_line::{Cli, Command};

fn main() -> ExitCode {
    let cli: Cli = match config::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(invalid) => {
            let message = invalid.message.trim_end();
            // Help and version are output, a bad flag is an error.
            if invalid.exit_code == 0 {
                return to_exit_code(terminal::print_line(message).map(|()| ExitCode::SUCCESS));
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
            eprintln!("error: cannot start the runtime: {error}");
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
        let code = to_exit_code(run(cli.command).await);
        telemetry.shutdown().await;
        code
    });
    // Dropping a Kafka client can hang while its broker is unreachable: do not wait for it.
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
        Command::ManPages(args) => completions::man_pages(&args)?,
        Command::Metrics(_) => metrics::run()?,
        Command::Load(args) => return load::run(args).await,
        Command::Audit(args) => return audit::run(*args).await,
        Command::Doctor(args) => return doctor::run(args).await,
        Command::Status(args) => return status::run(args).await,
        Command::Demo(args) => return demo::run(args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Services use the configured log level; tools log only warnings and errors unless a filter is set.
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

fn to_exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // The reader closed the pipe, as in `ordermesh events tail | head`.
    if terminal::is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    let is_input = error.chain().any(|cause| {
        cause.is::<::cli::BadInput>()
            || cause.is::<load::baskets::Error>()
            || cause.is::<load::report::Error>()
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
