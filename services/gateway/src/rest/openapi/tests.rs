//! Compares the document with the contracts, and reads it with an independent OpenAPI 3.1 library.

use std::collections::BTreeSet;

use super::*;

fn document() -> Value {
    describe(&operation::all())
}

/// Collects every value of a member at any depth.
fn members<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            for (member, value) in object {
                if member == name {
                    found.push(value);
                }
                members(value, name, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, name, found)),
        _ => {}
    }
}

#[test]
fn the_document_contains_exactly_the_operations_of_the_table() {
    let document = document();
    let operations: BTreeSet<_> = operation::all()
        .iter()
        .inspect(|operation| {
            let known = find_rpc(operation.rpc).is_some();
            assert_eq!(
                known,
                operation.path != "/openapi.json",
                "{}",
                operation.path
            );
        })
        .map(|operation| {
            let method = operation.method.as_str().to_ascii_lowercase();
            (operation.path.to_owned(), method)
        })
        .collect();
    let described: BTreeSet<_> = document["paths"]
        .as_object()
        .expect("it is an object")
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("it is an object").keys();
            methods.map(move |method| (path.clone(), method.clone()))
        })
        .collect();
    assert_eq!(described, operations);
}

#[test]
fn every_parameter_of_a_path_is_described() {
    for operation in operation::all() {
        let in_path: Vec<_> = operation
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let described: Vec<_> = operation
            .path_fields
            .iter()
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(described, in_path, "{}", operation.path);
    }
}

#[test]
fn every_reference_resolves_and_every_component_is_used() {
    let document = document();
    let mut references = Vec::new();
    members(&document, "$ref", &mut references);
    let references: BTreeSet<_> = references
        .into_iter()
        .map(|reference| reference.as_str().expect("it is text"))
        .collect();
    assert!(
        references.len() > 30,
        "only {} references",
        references.len()
    );
    for reference in &references {
        let pointer = reference.strip_prefix('#').expect("it is in this document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let components = document["components"].as_object().expect("it is an object");
    for (section, named) in components {
        for name in named.as_object().expect("it is an object").keys() {
            let reference = format!("#/components/{section}/{name}");
            assert!(references.contains(reference.as_str()), "{reference}");
        }
    }
}

#[test]
fn an_independent_openapi_library_reads_the_document() {
    let document = document();
    let read = oas3::from_json(document.to_string()).expect("it is an OpenAPI document");
    read.validate_version().expect("its version is supported");
    assert_eq!(read.operations().count(), operation::all().len());
    for (path, method, operation) in read.operations() {
        assert!(operation.operation_id.is_some(), "{method} {path}");
        assert!(!operation.responses(&read).is_empty(), "{method} {path}");
        for parameter in operation.parameters(&read).expect("they can be resolved") {
            assert!(parameter.schema.is_some(), "{}", parameter.name);
        }
    }
    for name in read
        .components
        .as_ref()
        .expect("it has some")
        .schemas
        .keys()
    {
        let schema = &read.components.as_ref().expect("it has some").schemas[name];
        schema.resolve(&read).expect("it is a schema");
    }
}

#[test]
fn schemas_match_the_canonical_json() {
    let document = document();
    let order = &document["components"]["schemas"]["ordermesh.query.v1.OrderView"]["properties"];
    assert_eq!(order["total"]["type"], "string", "64 bits");
    assert_eq!(order["late"]["type"], "boolean");
    assert_eq!(
        order["placedAt"],
        json!({"type": "string", "format": "date-time"})
    );
    assert_eq!(order["lines"]["type"], "array");
    assert_eq!(
        order["status"]["$ref"],
        "#/components/schemas/ordermesh.orders.v1.OrderStatus"
    );
    let statuses = &document["components"]["schemas"]["ordermesh.orders.v1.OrderStatus"]["enum"];
    assert_eq!(statuses[3], "ORDER_STATUS_CONFIRMED");
    let created = &document["components"]["schemas"]["ordermesh.orders.v1.OrderCreated"];
    assert_eq!(
        created["properties"]["bodyDigest"]["contentEncoding"],
        "base64"
    );
    let event = &document["components"]["schemas"]["ordermesh.orders.v1.OrderEvent"];
    assert!(
        event["oneOf"]
            .as_array()
            .is_some_and(|either| either.contains(&json!({"required": ["orderShipped"]}))),
        "{event}"
    );
}

#[test]
fn limits_are_those_of_the_contract() {
    let document = document();
    let place = &document["paths"]["/v1/orders"]["post"]["requestBody"]["content"]["application/json"]
        ["schema"];
    assert_eq!(
        place["required"],
        json!(["customerId", "contact", "lines", "currency"])
    );
    let customer = &place["properties"]["customerId"];
    assert_eq!(
        (&customer["minLength"], &customer["maxLength"]),
        (&json!(1), &json!(64))
    );
    let lines = &place["properties"]["lines"];
    assert_eq!(
        (&lines["minItems"], &lines["maxItems"]),
        (&json!(1), &json!(200))
    );
    assert_eq!(place["properties"]["currency"]["pattern"], "^[A-Z]{3}$");
    // Empty, or a valid id.
    assert_eq!(
        place["properties"]["orderId"]["anyOf"][0],
        json!({"const": ""})
    );
    let line = &document["components"]["schemas"]["ordermesh.orders.v1.OrderLine"]["properties"];
    assert_eq!(
        (&line["quantity"]["minimum"], &line["quantity"]["maximum"]),
        (&json!(1), &json!(1_000_000))
    );
    let price = line["unitPrice"]["description"]
        .as_str()
        .expect("it is text");
    assert!(
        price.ends_with("Must be at least 0, at most 1000000000000."),
        "{price}"
    );
    // A field in the path is optional in the body.
    let cancel = &document["paths"]["/v1/orders/{id}/cancel"]["post"];
    let body = &cancel["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["required"], json!(["customerId"]));
    assert!(body["properties"].get("orderId").is_some());

    let key = &document["paths"]["/v1/orders"]["post"]["parameters"][0];
    assert_eq!(key["name"], KEY_HEADER);
    assert_eq!(
        KEY_HEADER.to_ascii_lowercase(),
        crate::rest::IDEMPOTENCY_KEY.as_str()
    );
    assert!(key["schema"]["anyOf"].is_array(), "{key}");
    let list = &document["paths"]["/v1/orders"]["get"]["parameters"];
    assert_eq!(list[0]["name"], "status");
    assert_eq!(
        list[0]["schema"]["items"]["not"],
        json!({"enum": ["ORDER_STATUS_UNSPECIFIED"]})
    );
}

/// Fails for a rule that neither a keyword nor the description expresses.
#[test]
fn no_rule_of_the_contract_is_missing() {
    use prost_protovalidate_types::field_rules::Type;
    use prost_protovalidate_types::{FieldConstraintsExt as _, StringRules};

    let document = document();
    let mut checked = 0;
    for name in document["components"]["schemas"]
        .as_object()
        .expect("it is an object")
        .keys()
    {
        let Some(message) = DESCRIPTOR_POOL.get_message_by_name(name) else {
            continue;
        };
        for field in message.fields() {
            let Some(rules) = field.field_constraints().expect("they can be read") else {
                continue;
            };
            checked += 1;
            let known = match rules.r#type {
                Some(Type::String(rules)) => {
                    let rest = StringRules {
                        min_len: None,
                        max_len: None,
                        min_bytes: None,
                        max_bytes: None,
                        pattern: None,
                        well_known: None,
                        ..rules
                    };
                    rest == StringRules::default()
                }
                // Lengths of digests, which the document writes in base64.
                Some(Type::Bytes(_)) => true,
                Some(Type::Uint32(rules)) => rules.r#in.is_empty() && rules.not_in.is_empty(),
                Some(Type::Int64(rules)) => rules.r#in.is_empty(),
                Some(Type::Enum(rules)) => rules.r#in.is_empty(),
                Some(Type::Repeated(rules)) => !rules.unique.unwrap_or_default(),
                Some(_) => false,
                None => true,
            };
            assert!(known, "{} has a rule of another kind", field.full_name());
        }
    }
    assert!(checked > 30, "only {checked} fields");
}
