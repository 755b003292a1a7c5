//! Shared configuration: flags, each with an environment variable and a default.
//!
//! Each part is a separate `clap::Args`, so that a command lists only the flags it uses. The variable names are in
//! [`crate::env`].

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser};
use http::uri::Authority;

use crate::env;

/// Exit code for an invalid value.
pub const EXIT_BAD_VALUE: u8 = 64;
/// Exit code for a command line that cannot be parsed.
pub const EXIT_BAD_USAGE: u8 = 2;

const ORDERS_ADDRESS: &str = "127.0.0.1:7101";
const INVENTORY_ADDRESS: &str = "127.0.0.1:7102";
const QUERY_ADDRESS: &str = "127.0.0.1:7103";
const SANDBOX_ADDRESS: &str = "127.0.0.1:7104";

/// The log.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Kafka bootstrap servers, host:port, separated by commas
    #[arg(long = "kafka", id = "kafka", value_name = "SERVERS", env = env::KAFKA, default_value = "127.0.0.1:19092", value_parser = bootstrap)]
    pub bootstrap: String,
    /// Goes before every topic, group and transactional id
    #[arg(long, env = env::PREFIX, default_value = "", value_parser = prefix, hide_default_value = true)]
    pub prefix: String,
    /// Partitions of every topic, fixed for life
    #[arg(long, env = env::PARTITIONS, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub partitions: u16,
}

/// The schema registry.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// URL of the schema registry (Confluent API)
    #[arg(long = "registry", id = "registry", value_name = "URL", env = env::REGISTRY, default_value = "http://127.0.0.1:18081/apis/ccompat/v7", value_parser = http_url)]
    pub url: String,
}

/// The database of the read models.
#[derive(Args, Clone, PartialEq, Eq)]
pub struct Database {
    /// URL of the PostgreSQL database of the read models
    #[arg(long = "database", id = "database", value_name = "URL", env = env::DATABASE, hide_env_values = true, default_value = "postgres://ordermesh@127.0.0.1:15432/ordermesh", value_parser = postgres_url)]
    pub url: String,
}

impl std::fmt::Debug for Database {
    /// The URL may hold a password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Database").finish_non_exhaustive()
    }
}

/// The identity of this process among its replicas.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Name of this instance, stable over restarts; transactional and group member ids are made of it [default: host
    /// name and admin port]
    #[arg(long = "instance", id = "instance", value_name = "NAME", env = env::INSTANCE, value_parser = instance)]
    name: Option<String>,
}

impl Instance {
    /// The configured name, or host name and admin port when none is configured.
    pub fn name(&self, admin: SocketAddr) -> String {
        self.name.clone().unwrap_or_else(|| {
            let host = gethostname::gethostname()
                .to_string_lossy()
                .replace(|c: char| !in_instance(c), "-");
            format!("{host}-{}", admin.port())
        })
    }
}

/// Health and metrics.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where health and metrics are served
    #[arg(long = "admin", id = "admin", value_name = "ADDRESS", env = env::ADMIN, default_value = "127.0.0.1:9464")]
    pub address: SocketAddr,
}

/// The gateway's port.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Public {
    /// Where the gateway listens: gRPC and REST
    #[arg(long = "public", id = "public", value_name = "ADDRESS", env = env::PUBLIC, default_value = "127.0.0.1:8080")]
    pub address: SocketAddr,
}

/// Where the services behind the gateway listen.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where orders listens
    #[arg(long = "orders-listen", id = "orders_listen", value_name = "ADDRESS", env = env::ORDERS_LISTEN, default_value = ORDERS_ADDRESS)]
    pub orders: SocketAddr,
    /// Where inventory listens
    #[arg(long = "inventory-listen", id = "inventory_listen", value_name = "ADDRESS", env = env::INVENTORY_LISTEN, default_value = INVENTORY_ADDRESS)]
    pub inventory: SocketAddr,
    /// Where query listens
    #[arg(long = "query-listen", id = "query_listen", value_name = "ADDRESS", env = env::QUERY_LISTEN, default_value = QUERY_ADDRESS)]
    pub query: SocketAddr,
    /// Where the sandbox listens
    #[arg(long = "sandbox-listen", id = "sandbox_listen", value_name = "ADDRESS", env = env::SANDBOX_LISTEN, default_value = SANDBOX_ADDRESS)]
    pub sandbox: SocketAddr,
}

/// Where the services are reached: one address per replica.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Where orders is reached, host:port of each replica, separated by commas
    #[arg(long = "orders", id = "orders", value_name = "ADDRESSES", env = env::ORDERS, value_delimiter = ',', default_value = ORDERS_ADDRESS, value_parser = host_port)]
    pub orders: Vec<Authority>,
    /// Where inventory is reached, likewise
    #[arg(long = "inventory", id = "inventory", value_name = "ADDRESSES", env = env::INVENTORY, value_delimiter = ',', default_value = INVENTORY_ADDRESS, value_parser = host_port)]
    pub inventory: Vec<Authority>,
    /// Where query is reached, likewise
    #[arg(long = "query", id = "query", value_name = "ADDRESSES", env = env::QUERY, value_delimiter = ',', default_value = QUERY_ADDRESS, value_parser = host_port)]
    pub query: Vec<Authority>,
    /// Where the sandbox (payment provider and carrier) is reached, likewise
    #[arg(long = "sandbox", id = "sandbox", value_name = "ADDRESSES", env = env::SANDBOX, value_delimiter = ',', default_value = SANDBOX_ADDRESS, value_parser = host_port)]
    pub sandbox: Vec<Authority>,
}

impl Peers {
    /// The addresses of services that run in this process.
    pub fn local(listen: &Listen) -> Self {
        let authority = |address: SocketAddr| {
            let host = if address.ip().is_unspecified() {
                [127, 0, 0, 1].into()
            } else {
                address.ip()
            };
            let address = SocketAddr::new(host, address.port()).to_string();
            vec![Authority::try_from(address).expect("a socket address is an authority")]
        };
        Self {
            orders: authority(listen.orders),
            inventory: authority(listen.inventory),
            query: authority(listen.query),
            sandbox: authority(listen.sandbox),
        }
    }
}

/// A command line or environment that cannot be used: what to print, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// One line for an invalid value; clap's own output (usage, help, version) otherwise.
    pub message: String,
    /// [`EXIT_BAD_VALUE`], [`EXIT_BAD_USAGE`], or 0 when help or the version was asked for.
    pub exit_code: u8,
}

/// Parses a command line that begins with the program's name; missing flags come from the environment.
///
/// # Errors
///
/// [`Invalid`] names the flag and its variable. A request for help also returns it, with exit code 0.
pub fn parse<P: Parser>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<P, Invalid> {
    P::try_parse_from(arguments).map_err(|error| invalid(&error, &P::command()))
}

fn invalid(error: &clap::Error, command: &clap::Command) -> Invalid {
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => Invalid {
            message: bad_value(error, command),
            exit_code: EXIT_BAD_VALUE,
        },
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Invalid {
            message: error.render().ansi().to_string(),
            exit_code: 0,
        },
        _ => Invalid {
            message: error.render().ansi().to_string(),
            exit_code: EXIT_BAD_USAGE,
        },
    }
}

/// One line that names the flag and its variable, because clap does not report where a value came from.
fn bad_value(error: &clap::Error, command: &clap::Command) -> String {
    let rendered = error.render().to_string();
    let line = rendered.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let variable = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(shown)) => {
            variable_of(command, shown.split_whitespace().next().unwrap_or_default())
        }
        _ => None,
    };
    match variable {
        Some(variable) => format!("{line} (flag or {variable})"),
        None => line.to_owned(),
    }
}

fn variable_of(command: &clap::Command, flag: &str) -> Option<String> {
    let own = command
        .get_arguments()
        .find(|argument| {
            argument
                .get_long()
                .is_some_and(|long| flag.strip_prefix("--") == Some(long))
        })
        .and_then(|argument| argument.get_env());
    match own {
        Some(variable) => Some(variable.to_string_lossy().into_owned()),
        None => command
            .get_subcommands()
            .find_map(|command| variable_of(command, flag)),
    }
}

fn bootstrap(text: &str) -> Result<String, String> {
    text.split(',')
        .try_for_each(|server| host_port(server).map(drop))?;
    Ok(text.to_owned())
}

fn host_port(text: &str) -> Result<Authority, String> {
    text.trim()
        .parse::<Authority>()
        .ok()
        .filter(|authority| !authority.host().is_empty() && authority.port_u16().is_some())
        .filter(|authority| !authority.as_str().contains('@'))
        .ok_or_else(|| "expected host:port".to_owned())
}

fn prefix(text: &str) -> Result<String, String> {
    let valid = text
        .chars()
        .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err("only a-z, 0-9, '.' and '-' are allowed".to_owned())
    }
}

const fn in_instance(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn instance(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.len() <= 64 && text.chars().all(in_instance);
    if valid {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 letters, digits, '.', '_' or '-'".to_owned())
    }
}

fn http_url(text: &str) -> Result<String, String> {
    url(text, &["http", "https"])?;
    Ok(text.trim_end_matches('/').to_owned())
}

fn postgres_url(text: &str) -> Result<String, String> {
    url(text, &["postgres", "postgresql"])?;
    Ok(text.to_owned())
}

fn url(text: &str, schemes: &[&str]) -> Result<(), String> {
    text.split_once("://")
        .filter(|(scheme, rest)| schemes.contains(scheme) && !rest.is_empty())
        .map(drop)
        .ok_or_else(|| format!("expected a URL that starts with {}://", schemes[0]))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;

    #[derive(Parser, Debug)]
    struct Everything {
        #[command(flatten)]
        kafka: Kafka,
        #[command(flatten)]
        registry: Registry,
        #[command(flatten)]
        database: Database,
        #[command(flatten)]
        instance: Instance,
        #[command(flatten)]
        admin: Admin,
        #[command(flatten)]
        public: Public,
        #[command(flatten)]
        listen: Listen,
        #[command(flatten)]
        peers: Peers,
    }

    /// Parses flags and ignores the environment of the test process.
    fn parse_flags(flags: &[&str]) -> Result<Everything, Invalid> {
        let command = Everything::command().mut_args(|argument| argument.env(None::<&str>));
        let arguments = std::iter::once("test").chain(flags.iter().copied());
        command
            .try_get_matches_from(arguments)
            .and_then(|matches| Everything::from_arg_matches(&matches))
            .map_err(|error| invalid(&error, &Everything::command()))
    }

    #[test]
    fn the_flags_of_all_parts_do_not_conflict() {
        Everything::command().debug_assert();
    }

    #[test]
    fn defaults_address_a_local_stack() {
        let all = parse_flags(&[]).expect("defaults are valid");
        assert_eq!(
            all.kafka,
            Kafka {
                bootstrap: "127.0.0.1:19092".into(),
                prefix: String::new(),
                partitions: 4
            }
        );
        assert_eq!(all.registry.url, "http://127.0.0.1:18081/apis/ccompat/v7");
        assert_eq!(
            all.database.url,
            "postgres://ordermesh@127.0.0.1:15432/ordermesh"
        );
        assert_eq!(all.admin.address.port(), 9464);
        assert_eq!(all.public.address.port(), 8080);
        assert_eq!(all.peers, Peers::local(&all.listen));
    }

    #[test]
    fn replicas_are_separated_by_commas() {
        let all =
            parse_flags(&["--orders", "a:1,b.example:2,[::1]:3"]).expect("all three are valid");
        assert_eq!(all.peers.orders, ["a:1", "b.example:2", "[::1]:3"]);
    }

    #[test]
    fn a_bad_value_gives_one_line_with_flag_and_variable() {
        for (flag, variable, value) in [
            ("--kafka", env::KAFKA, "localhost"),
            ("--kafka", env::KAFKA, "a:1,,b:2"),
            ("--prefix", env::PREFIX, "Upper"),
            ("--partitions", env::PARTITIONS, "0"),
            ("--partitions", env::PARTITIONS, "many"),
            ("--registry", env::REGISTRY, "ftp://registry"),
            ("--database", env::DATABASE, "mysql://db"),
            ("--instance", env::INSTANCE, "a b"),
            ("--admin", env::ADMIN, "9464"),
            ("--public", env::PUBLIC, "nowhere"),
            ("--orders-listen", env::ORDERS_LISTEN, "host:1"),
            ("--orders", env::ORDERS, "a:1,b"),
            ("--query", env::QUERY, "user@host:1"),
            ("--sandbox", env::SANDBOX, ":7104"),
        ] {
            let invalid = parse_flags(&[flag, value]).expect_err(value);
            assert_eq!(invalid.exit_code, EXIT_BAD_VALUE, "{flag} {value}");
            let message = invalid.message;
            assert!(
                message.contains(flag) && message.contains(variable),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_flag_that_does_not_exist_is_bad_usage() {
        assert_eq!(
            parse_flags(&["--kafkaa", "a:1"])
                .expect_err("it does not exist")
                .exit_code,
            EXIT_BAD_USAGE
        );
        assert_eq!(
            parse_flags(&["--help"])
                .expect_err("help is no configuration")
                .exit_code,
            0
        );
    }

    #[test]
    fn an_instance_has_a_default_name() {
        let all = parse_flags(&[]).expect("defaults are valid");
        let name = all.instance.name(all.admin.address);
        assert!(
            name.ends_with("-9464") && name.chars().all(in_instance),
            "{name}"
        );
        let all = parse_flags(&["--instance", "orders-1"]).expect("it is valid");
        assert_eq!(all.instance.name(all.admin.address), "orders-1");
    }

    #[test]
    fn a_password_is_not_shown() {
        let all = parse_flags(&["--database", "postgres://me:secret@db/x"]).expect("it is valid");
        assert!(!format!("{all:?}").contains("secret"));
    }

    #[test]
    fn an_unspecified_listen_address_is_reached_over_loopback() {
        let all = parse_flags(&["--orders-listen", "0.0.0.0:9001"]).expect("it is valid");
        assert_eq!(Peers::local(&all.listen).orders, ["127.0.0.1:9001"]);
    }
}
