//! The definitions as an API server sees them, and what a person sees by them.

use anyhow::{Result, ensure};
use larder_test_controller::{DEFINITIONS, GROUP, World, until};
use serde_json::{Value, json};

pub(crate) fn the_api_server_takes_them(world: &World) -> Result<()> {
    ensure!(world.warnings.is_empty(), "{:?}", world.warnings);
    for (name, _) in DEFINITIONS {
        let definition =
            world.get(&format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"))?.done()?;
        let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is = |of: &str| conditions.iter().any(|condition| condition["type"] == of && condition["status"] == "True");
        ensure!(is("Established") && is("NamesAccepted") && !is("NonStructuralSchema"), "{name}: {conditions:?}");
    }
    // Both fail where a name is not known; what is there is other cases' affair.
    world.plane.kubectl(&["get", "ci,upr,nm"], "")?;
    let known = world.plane.kubectl(&["api-resources", "--categories=larder", "--output=name"], "")?;
    ensure!(known.lines().count() == DEFINITIONS.len(), "{known}");
    Ok(())
}

pub(crate) fn they_are_explained(world: &World) -> Result<()> {
    for (field, text) in [
        ("ci", "An image that the cluster cache keeps, so that it can be pulled"),
        ("ci.spec.expiry", "How long it is kept after its last use, as 30d, 12h or 1d12h."),
        ("ci.status.conditions.reason", "Why, in a word for machines."),
        ("upr.spec", "What is said of the registry."),
        ("upr.spec.onOrigin404", "ENUM: serve refuse DESCRIPTION: What happens to an image that is cached"),
        ("nm.status.leftAlone", "Registries that are pulled from as without Larder"),
    ] {
        until("it is explained", || {
            let said = world.plane.kubectl(&["explain", field], "")?;
            // kubectl breaks lines where it likes.
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(said.contains(text), "{field}: {said}");
            Ok(())
        })?;
    }
    Ok(())
}

fn condition(of: &str, status: &str, reason: &str) -> Value {
    json!({ "type": of, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

/// The head and the cells of the only row, but for the name and for what a clock says.
fn row(world: &World, plural: &str, name: &str) -> Result<Vec<(String, String)>> {
    let table = world.get(&format!("{GROUP}/{plural}/{name}?as=Table"))?.done()?;
    let cells = table["rows"][0]["cells"].as_array().cloned().unwrap_or_default();
    let heads = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
    ensure!(heads.len() == cells.len() && !cells.is_empty(), "{table}");
    let always = heads.iter().zip(&cells).filter(|(head, _)| head["priority"] == 0);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = always.map(|(head, cell)| (text(&head["name"]), text(cell)));
    // What of it is a span until now is another one each time.
    let is_age =
        |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(['s', 'm', 'h', 'd', 'y']);
    let named = row.filter(|(head, _)| head != "Name" && head != "Age");
    Ok(named.map(|(head, cell)| if is_age(&cell) { (head, "an age".to_owned()) } else { (head, cell) }).collect())
}

fn made(world: &World, plural: &str, object: &Value, status: &Value) -> Result<Vec<(String, String)>> {
    let name = object["metadata"]["name"].as_str().unwrap();
    world.post(&format!("{GROUP}/{plural}"), object)?.done()?;
    world.merge(&format!("{GROUP}/{plural}/{name}/status"), &json!({ "status": status }))?.done()?;
    row(world, plural, name)
}

pub(crate) fn a_table_answers_at_a_glance(world: &World) -> Result<()> {
    let image = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": { "name": "glance" },
        "spec": { "image": "docker.io/library/glance:1" },
    });
    let status = json!({
        "usedBy": { "count": 3 }, "expiresAt": "2026-02-01T00:00:00Z", "sizeBytes": 7,
        "conditions": [
            condition("Cached", "True", "Complete"),
            condition("UpstreamAvailable", "False", "Gone"),
            condition("UpToDate", "Unknown", "NotChecked"),
        ],
    });
    let cells = [
        ("Image", "docker.io/library/glance:1"),
        ("Cached", "True"),
        ("Why", "Complete"),
        ("Upstream", "Gone"),
        ("Current", "Unknown"),
        ("Pods", "3"),
        ("Expires", "2026-02-01T00:00:00Z"),
    ];
    same(&made(world, "cachedimages", &image, &status)?, &cells)?;
    // Of one that has no end it is in the place of the end why.
    let without_end = json!({ "status": { "expiresAt": null, "kept": "Retained" } });
    world.merge(&format!("{GROUP}/cachedimages/glance/status"), &without_end)?.done()?;
    let shown = row(world, "cachedimages", "glance")?;
    ensure!(shown.contains(&("Expires".to_owned(), "Retained".to_owned())), "{shown:?}");
    let registry = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": { "name": "glance.example.com" },
        "spec": { "registry": "glance.example.com" },
    });
    let status = json!({
        "quota": { "limit": 100, "remaining": 42, "seenAt": "2026-01-01T00:00:00Z" },
        "images": { "known": 5, "cached": 4, "missingUpstream": 1 },
        "conditions": [condition("Reachable", "True", "Answers"), condition("AllCached", "False", "SomeMissing")],
    });
    let cells = [
        ("Registry", "glance.example.com"),
        ("Reachable", "True"),
        ("Safe", "False"),
        ("Images", "5"),
        ("Cached", "4"),
        ("Gone", "1"),
        ("Quota", "42"),
    ];
    same(&made(world, "upstreamregistries", &registry, &status)?, &cells)?;
    let mirror = json!({ "apiVersion": "larder.dev/v1alpha1", "kind": "NodeMirror", "metadata": { "name": "glance" } });
    let status = json!({
        "engine": { "name": "containerd", "version": "2.4.2" }, "leftAloneCount": 2, "toDo": ["set config_path", "more"],
        "seenAt": "2026-01-01T00:00:00Z",
        "conditions": [
            condition("Configured", "False", "NeedsConfiguration"),
            condition("Withdrawn", "False", "Announced"),
            condition("Conflict", "False", "Nobody"),
        ],
    });
    let cells = [
        ("Engine", "containerd"),
        ("Version", "2.4.2"),
        ("Configured", "False"),
        ("Withdrawn", "False"),
        ("Conflict", "False"),
        ("Left alone", "2"),
        ("Seen", "an age"),
    ];
    same(&made(world, "nodemirrors", &mirror, &status)?, &cells)
}

fn same(row: &[(String, String)], cells: &[(&str, &str)]) -> Result<()> {
    let cells: Vec<_> = cells.iter().map(|(head, cell)| ((*head).to_owned(), (*cell).to_owned())).collect();
    ensure!(row == cells, "{row:?} is not {cells:?}");
    Ok(())
}
