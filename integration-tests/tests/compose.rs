//! The container stack compared with the native stack: the native one is tested, and the differences are checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use harness::system::binary;
use serde_json::Value;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Upper limit of the memory of all containers of the profile `full`, bytes.
const MEMORY_LIMIT: u64 = 2_500_000_000;
const MIB: u64 = 1024 * 1024;
/// Settings that differ in a container: addresses of the broker and the location of its data.
const LOCATION_SETTINGS: [&str; 7] = [
    "controller.quorum.voters",
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "inter.broker.listener.name",
    "controller.listener.names",
    "log.dirs",
];

#[test]
fn every_service_has_a_container() {
    let compose = Compose::read();
    let served: BTreeSet<_> = compose.served().into_keys().collect();
    let help = help_of_serve();
    let roles: BTreeSet<_> = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':'))
        .map(|(role, _)| role.to_owned())
        .filter(|role| role != "all")
        .collect();
    assert!(roles.len() > 5, "these roles were found: {roles:?}");
    assert_eq!(served, roles);
}

#[test]
fn containers_listen_where_the_native_stack_does() {
    let settings = text("compose/native/lib/settings.sh");
    let mut ports = BTreeMap::new();
    for found in settings.split("port_from ORDERMESH_").skip(1) {
        let mut parts = found.split([' ', ')']);
        let name = parts.next().unwrap().strip_suffix("_PORT").unwrap();
        if let Ok(port) = parts.next().unwrap().parse::<u16>() {
            ports.insert(name.to_lowercase().replace('_', "-"), port);
        }
    }
    ports.insert("gateway".to_owned(), 8080);
    assert!(ports.len() > 8, "these ports were found: {ports:?}");
    let compose = Compose::read();
    for (name, port) in ports {
        let published = compose.service(&name)["ports"].to_string();
        assert!(
            published.contains(&format!("\"127.0.0.1:{port}:")),
            "{name} is on {port} natively, and in its container {published}"
        );
    }
}

#[test]
fn variables_are_known_to_the_services() {
    let mut known = help_of_serve();
    known.push_str(&text("observability/src/names.rs"));
    let compose = Compose::read();
    for (name, service) in compose.served() {
        let variables = service["environment"].as_object().unwrap();
        assert!(variables.len() > 10, "{name} has {variables:?}");
        for variable in variables.keys() {
            // Help does not show the value of a secret.
            let documented = [
                format!("env: {variable}="),
                format!("env: {variable}]"),
                format!("\"{variable}\""),
            ];
            assert!(
                documented
                    .iter()
                    .any(|documented| known.contains(documented)),
                "no service reads {variable}, which {name} has"
            );
        }
    }
}

#[test]
fn the_broker_is_set_up_as_the_native_one() {
    let compose = Compose::read();
    let environment = &compose.service("kafka")["environment"];
    let properties = text("compose/native/kafka/server.properties");
    let mut compared = 0;
    for (key, value) in properties.lines().filter_map(|line| line.split_once('=')) {
        if LOCATION_SETTINGS.contains(&key) || key.starts_with('#') {
            continue;
        }
        let variable = format!("KAFKA_{}", key.to_uppercase().replace('.', "_"));
        let here = match &environment[&variable] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(here, value, "{variable}");
        compared += 1;
    }
    assert!(compared > 15, "only {compared} settings were compared");
}

#[test]
fn versions_are_pinned_and_those_of_the_native_stack() {
    let compose = Compose::read();
    for (name, service) in &compose.services {
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        assert!(
            tag.split('.').count() >= 2 && tag.contains(|c: char| c.is_ascii_digit()),
            "{name}: {image} is not pinned"
        );
    }
    let versions = text("compose/versions.env");
    for (name, variable, end) in [
        ("kafka", "KAFKA_VERSION", ""),
        ("jaeger", "JAEGER_VERSION", ""),
        ("collector", "COLLECTOR_VERSION", ""),
        ("postgres", "POSTGRES_MAJOR", "."),
    ] {
        let version = versions
            .lines()
            .find_map(|line| line.strip_prefix(variable)?.strip_prefix('='))
            .unwrap();
        let image = compose.service(name)["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap();
        assert!(
            tag == version || (!end.is_empty() && tag.starts_with(&format!("{version}{end}"))),
            "{name} is {version} natively, and in its container {tag}"
        );
    }
}

#[test]
fn memory_limits_fit_a_small_machine() {
    let mut sum = 0;
    for (name, service) in &Compose::read().services {
        let limit = service["mem_limit"].as_str().unwrap_or_else(|| {
            panic!("{name} has no limit of memory");
        });
        let limit: u64 = limit.strip_suffix('m').unwrap().parse().unwrap();
        if service["profiles"].to_string().contains("\"full\"") {
            sum += limit * MIB;
        }
    }
    assert!(sum > 0 && sum < MEMORY_LIMIT, "they may take {sum} bytes");
}

#[test]
fn mounted_files_exist() {
    let folder = Path::new(PROJECT).join("compose");
    let mut mounted = 0;
    for (name, service) in &Compose::read().services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if source.starts_with('.') {
                let place = folder.join(source);
                assert!(place.exists(), "{name} mounts {source}, which is not there");
                mounted += 1;
            }
        }
    }
    assert!(mounted > 5, "only {mounted} files are mounted");
}

#[test]
fn every_process_is_scraped() {
    let compose = Compose::read();
    let mut scraped = BTreeSet::new();
    for job in [
        "ordermesh",
        "node",
        "collector",
        "prometheus",
        "alertmanager",
    ] {
        let list = text(&format!("compose/prometheus/targets/{job}.json"));
        let list: Value = serde_json::from_str(&list).unwrap();
        for target in list[0]["targets"].as_array().unwrap() {
            let (host, _) = target.as_str().unwrap().split_once(':').unwrap();
            compose.service(host);
            scraped.insert(host.to_owned());
        }
    }
    for name in compose.served().keys() {
        assert!(scraped.contains(name), "{name} is not scraped");
    }
    let jobs = text("observability/prometheus/prometheus.yml");
    assert_eq!(
        jobs.matches("job_name:").count(),
        5,
        "the number of jobs has changed"
    );
}

#[test]
fn fault_proxies_are_between_services_and_their_dependencies() {
    let compose = Compose::read();
    let proxies: Vec<Value> =
        serde_json::from_str(&text("compose/toxiproxy/proxies.json")).unwrap();
    for proxy in &proxies {
        let upstream = proxy["upstream"].as_str().unwrap();
        compose.service(upstream.split(':').next().unwrap());
    }
    let chaos = text("compose/chaos.env");
    let through: Vec<_> = chaos
        .lines()
        .filter_map(|line| line.split_once("=toxiproxy:"))
        .collect();
    assert_eq!(through.len(), proxies.len());
    for (variable, port) in through {
        let listens = format!("0.0.0.0:{port}");
        assert!(
            proxies.iter().any(|proxy| proxy["listen"] == *listens),
            "nothing listens for {variable}"
        );
        assert!(
            compose.source.contains(&format!("${{{variable}:-")),
            "no service reads {variable}"
        );
    }
}

#[test]
fn the_image_contains_every_build_input() {
    let allowed = text("compose/Dockerfile.dockerignore");
    let allowed: BTreeSet<_> = allowed
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    let manifest = text("Cargo.toml");
    let members = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(members, _)| members)
        .unwrap();
    let folders: BTreeSet<_> = members
        .split('"')
        .skip(1)
        .step_by(2)
        .filter_map(|member| member.split('/').next())
        .collect();
    assert!(folders.len() > 5, "these members were found: {folders:?}");
    for needed in folders
        .into_iter()
        .chain(["Cargo.toml", "Cargo.lock", "build.rs", "proto"])
    {
        assert!(
            allowed.contains(needed),
            "the image is built without {needed}"
        );
        assert!(Path::new(PROJECT).join(needed).exists());
    }
}

struct Compose {
    source: String,
    services: BTreeMap<String, Value>,
}

impl Compose {
    fn read() -> Self {
        let source = text("compose/compose.yaml");
        let compose: Value = serde_saphyr::from_str(&source).unwrap();
        let services: BTreeMap<_, _> = compose["services"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, service)| (name.clone(), service.clone()))
            .collect();
        assert!(services.len() > 15, "only {} services", services.len());
        Self { source, services }
    }

    fn service(&self, name: &str) -> &Value {
        self.services
            .get(name)
            .unwrap_or_else(|| panic!("there is no container {name}"))
    }

    /// Containers that run `ordermesh serve`, by service.
    fn served(&self) -> BTreeMap<String, &Value> {
        let mut served = BTreeMap::new();
        for (name, service) in &self.services {
            if service["command"][0] == "serve" {
                let role = service["command"][1].as_str().unwrap();
                assert_eq!(role, name, "a container is called by what it serves");
                assert!(
                    service["healthcheck"]["test"].is_array(),
                    "{name} has no health check"
                );
                served.insert(role.to_owned(), service);
            }
        }
        served
    }
}

fn text(path: &str) -> String {
    let path = Path::new(PROJECT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Help text without colours.
fn help_of_serve() -> String {
    let output = Command::new(binary())
        .args(["serve", "--help"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let mut plain = String::new();
    for (number, piece) in help.split('\u{1b}').enumerate() {
        let piece = match piece.split_once('m') {
            Some((_, rest)) if number > 0 => rest,
            _ => piece,
        };
        plain.push_str(piece);
    }
    plain
}
