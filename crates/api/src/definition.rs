//! Whole definitions, as the API server takes them: what is derived from the types, and what no type can say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{CachedImage, NodeMirror, UpstreamRegistry, cached_image, node_mirror, schema, upstream_registry};

/// One column of what `kubectl get` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub of: &'static str,
    /// Where it comes from.
    pub json_path: &'static str,
    /// What it means.
    pub description: &'static str,
    /// 0 for those that are always printed.
    pub priority: i32,
}

impl Column {
    /// One that is always printed.
    pub(crate) const fn new(
        name: &'static str,
        of: &'static str,
        json_path: &'static str,
        description: &'static str,
    ) -> Self {
        Self { name, of, json_path, description, priority: 0 }
    }

    /// One that is printed with `--output wide`.
    pub(crate) const fn wide(
        name: &'static str,
        of: &'static str,
        json_path: &'static str,
        description: &'static str,
    ) -> Self {
        Self { priority: 1, ..Self::new(name, of, json_path, description) }
    }
}

/// The definition of each kind, as values that can be sent to an API server.
pub fn all() -> serde_json::Result<[Value; 3]> {
    let [image, mut registry, node] = [
        of(
            &CachedImage::crd(),
            cached_image::COLUMNS,
            "What is wanted: an image, and for how long.",
            "What has become of it.",
        )?,
        of(&UpstreamRegistry::crd(), upstream_registry::COLUMNS, "What is said of the registry.", "How it is doing.")?,
        of(&NodeMirror::crd(), node_mirror::COLUMNS, "", "How the node is doing.")?,
    ];
    if let Some(root) = root(&mut registry) {
        root.insert("x-kubernetes-validations".to_owned(), schema::name_of_registry());
    }
    Ok([image, registry, node])
}

fn of(derived: &CustomResourceDefinition, columns: &[Column], spec: &str, status: &str) -> serde_json::Result<Value> {
    let mut definition = serde_json::to_value(derived)?;
    tidy(&mut definition);
    if let Some(version) = definition.pointer_mut("/spec/versions/0").and_then(Value::as_object_mut) {
        version.insert("additionalPrinterColumns".to_owned(), json!(columns));
    }
    if let Some(root) = root(&mut definition) {
        for (name, text) in [("spec", spec), ("status", status)] {
            if let Some(part) = root.get_mut("properties").and_then(|properties| properties.get_mut(name)) {
                part["description"] = text.into();
            }
        }
    }
    Ok(definition)
}

/// The schema of the whole object.
fn root(definition: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema")?.as_object_mut()
}

/// Takes away what generators add: `nullable` (a field that is nothing is not written, and a null that somebody writes is pruned and gets the
/// default), the names of Rust types, and the ends of lines of comments. Bounds of whole numbers become whole numbers.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            if map.get("title").is_some_and(Value::is_string) {
                map.remove("title");
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            let whole = map.get("type").is_some_and(|of| of == "integer");
            for bound in ["minimum", "maximum"].into_iter().filter(|_| whole) {
                if let Some(number) = map.get_mut(bound)
                    && let Ok(least) = number.to_string().trim_end_matches(".0").parse::<i64>()
                {
                    *number = json!(least);
                }
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls on every schema, with its path.
    fn each(path: &str, schema: &Value, call: &mut impl FnMut(&str, &Value)) {
        call(path, schema);
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                each(&format!("{path}.{name}"), property, call);
            }
        }
        if schema["items"].is_object() {
            each(&format!("{path}[]"), &schema["items"], call);
        }
    }

    fn each_of_all(mut call: impl FnMut(&str, &Value)) {
        for definition in all().unwrap() {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            for part in ["spec", "status"] {
                if schema["properties"][part].is_object() {
                    each(&format!("{kind}.{part}"), &schema["properties"][part], &mut call);
                }
            }
        }
    }

    #[test]
    fn every_text_and_list_has_a_bound_and_every_field_a_description() {
        let mut seen = 0;
        each_of_all(|path, schema| {
            seen += 1;
            let bounded = match schema["type"].as_str() {
                Some("string") => {
                    !schema["maxLength"].is_null() || !schema["enum"].is_null() || schema["format"] == "date-time"
                }
                Some("array") => !schema["maxItems"].is_null() && !schema["x-kubernetes-list-type"].is_null(),
                Some("object" | "integer" | "boolean") => schema["additionalProperties"].is_null(),
                other => panic!("{path} has the type {other:?}"),
            };
            assert!(bounded, "{path} has no bound: {schema}");
            let described = schema["description"].as_str().is_some_and(|text| text.ends_with('.'));
            assert!(described || path.ends_with("[]"), "{path} is not described in a sentence");
        });
        assert!(seen > 80, "{seen}");
    }

    /// What an object may be at most: etcd takes 1.5 MiB, and a thousand of the largest are to be no trouble either.
    #[test]
    fn a_status_cannot_fill_etcd() {
        fn most(schema: &Value) -> u64 {
            let number = |name: &str| schema[name].as_u64();
            match schema["type"].as_str() {
                Some("string") => number("maxLength").unwrap_or(32),
                Some("array") => number("maxItems").unwrap() * most(&schema["items"]),
                Some("object") => {
                    let properties = schema["properties"].as_object();
                    properties
                        .map_or(0, |map| map.iter().map(|(name, property)| name.len() as u64 + most(property)).sum())
                }
                _ => 20,
            }
        }
        for definition in all().unwrap() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            let bytes = most(&schema["status"]);
            assert!(bytes > 1000 && bytes < 512 * 1024, "{}: {bytes}", definition["metadata"]["name"]);
        }
    }

    #[test]
    fn nothing_may_be_null() {
        assert!(!serde_json::to_string(&all().unwrap()).unwrap().contains("nullable"));
    }
}
