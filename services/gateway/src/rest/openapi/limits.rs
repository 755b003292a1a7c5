//! Field rules (`buf.validate`) as keywords of JSON Schema.

use prost_protovalidate_types::field_rules::Type;
use prost_protovalidate_types::string_rules::WellKnown;
use prost_protovalidate_types::{
    FieldRules, Ignore, Int64Rules, StringRules, UInt32Rules, int64_rules, u_int32_rules,
};
use prost_reflect::Kind;
use serde_json::{Map, Value, json};

/// Adds the rules of a value to its schema.
pub(super) fn apply(rules: &FieldRules, kind: &Kind, schema: &mut Value) {
    let limits = match &rules.r#type {
        Some(Type::String(rules)) => string_keywords(rules),
        Some(Type::Uint32(rules)) => uint32_keywords(rules),
        Some(Type::Repeated(rules)) => keywords([
            ("minItems", rules.min_items.map(Value::from)),
            ("maxItems", rules.max_items.map(Value::from)),
        ]),
        Some(Type::Bytes(_)) | Some(Type::Int64(_)) | None => Map::new(),
        Some(Type::Enum(rules)) => excluded_names(&rules.not_in, kind),
        // The contracts use no other rules, which a test checks.
        Some(_) => Map::new(),
    };
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    if rules.ignore == Some(Ignore::IfZeroValue.into()) && !limits.is_empty() {
        schema.insert("anyOf".into(), json!([{"const": ""}, limits]));
    } else {
        schema.extend(limits);
    }
}

/// The rules of each item of a list.
pub(super) fn of_items(rules: &FieldRules) -> FieldRules {
    match &rules.r#type {
        Some(Type::Repeated(list)) => list.items.as_deref().cloned().unwrap_or_default(),
        _ => FieldRules::default(),
    }
}

/// Whether a missing field breaks its rules: it would have its zero value.
pub(super) fn is_required(rules: &FieldRules) -> bool {
    if rules.ignore == Some(Ignore::IfZeroValue.into()) {
        return false;
    }
    let zero_breaks = match &rules.r#type {
        Some(Type::String(rules)) => {
            let minimum = rules.min_len.max(rules.min_bytes).unwrap_or_default();
            minimum > 0 || rules.pattern.is_some() || rules.well_known.is_some()
        }
        Some(Type::Uint32(rules)) => match rules.greater_than {
            Some(u_int32_rules::GreaterThan::Gt(_)) => true,
            Some(u_int32_rules::GreaterThan::Gte(least)) => least > 0,
            None => false,
        },
        Some(Type::Int64(rules)) => rules.not_in.contains(&0),
        Some(Type::Enum(rules)) => rules.not_in.contains(&0),
        Some(Type::Repeated(rules)) => rules.min_items.unwrap_or_default() > 0,
        _ => false,
    };
    rules.required.unwrap_or_default() || zero_breaks
}

/// Rules without a keyword, as text: limits of numbers that are written as strings, and lengths in bytes.
pub(super) fn as_text(rules: &FieldRules) -> Option<String> {
    match &rules.r#type {
        Some(Type::Int64(rules)) => int64_text(rules),
        Some(Type::String(StringRules {
            max_bytes: Some(bytes),
            ..
        })) => Some(format!("At most {bytes} bytes.")),
        _ => None,
    }
}

fn string_keywords(rules: &StringRules) -> Map<String, Value> {
    let uuid = matches!(rules.well_known, Some(WellKnown::Uuid(true)));
    keywords([
        // `max_bytes` also limits the characters: each has at least one byte.
        ("minLength", rules.min_len.map(Value::from)),
        (
            "maxLength",
            rules.max_len.or(rules.max_bytes).map(Value::from),
        ),
        ("pattern", rules.pattern.clone().map(Value::from)),
        ("format", uuid.then(|| "uuid".into())),
    ])
}

fn uint32_keywords(rules: &UInt32Rules) -> Map<String, Value> {
    use u_int32_rules::{GreaterThan, LessThan};
    let least = match rules.greater_than {
        Some(GreaterThan::Gt(below)) => ("exclusiveMinimum", Some(below.into())),
        Some(GreaterThan::Gte(least)) => ("minimum", Some(least.into())),
        None => ("minimum", None),
    };
    let most = match rules.less_than {
        Some(LessThan::Lt(above)) => ("exclusiveMaximum", Some(above.into())),
        Some(LessThan::Lte(most)) => ("maximum", Some(most.into())),
        None => ("maximum", None),
    };
    keywords([least, most])
}

fn int64_text(rules: &Int64Rules) -> Option<String> {
    use int64_rules::{GreaterThan, LessThan};
    let least = rules.greater_than.map(|least| match least {
        GreaterThan::Gt(below) => format!("greater than {below}"),
        GreaterThan::Gte(least) => format!("at least {least}"),
    });
    let most = rules.less_than.map(|most| match most {
        LessThan::Lt(above) => format!("less than {above}"),
        LessThan::Lte(most) => format!("at most {most}"),
    });
    let never = rules.not_in.iter().map(|never| format!("not {never}"));
    let conditions: Vec<_> = least.into_iter().chain(most).chain(never).collect();
    (!conditions.is_empty()).then(|| format!("Must be {}.", conditions.join(", ")))
}

fn excluded_names(excluded: &[i32], kind: &Kind) -> Map<String, Value> {
    let names: Vec<_> = excluded
        .iter()
        .filter_map(|number| kind.as_enum()?.get_value(*number))
        .map(|value| value.name().to_owned())
        .collect();
    let not = (!names.is_empty()).then(|| json!({"enum": names}));
    keywords([("not", not)])
}

fn keywords<const N: usize>(pairs: [(&str, Option<Value>); N]) -> Map<String, Value> {
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}
