//! `inspect` and its forms for one kind of object.

use sbx_engine::{Engine, ErrorKind, STORAGE_DRIVER};
use sbx_image::{Image, Reference};
use sbx_sandbox::volumes::Volume;
use serde_json::{Map, Value, json};

use super::{Fault, Outcome, images, print};
use crate::command::{Inspect, ObjectKind};
use crate::table;
use crate::template::Template;

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Exit status of a template that cannot be read.
const BAD_TEMPLATE: u8 = 64;

/// `inspect`: what is not there is told, the others are shown all the same.
pub(super) fn inspect(engine: &Engine, command: &Inspect) -> Outcome {
    let template = command.format.as_deref().filter(|format| !matches!(*format, "" | "json"));
    if let Some(Err(error)) = template.map(Template::parse) {
        return Err(Fault::with_status(format!("template parsing error: {error}"), BAD_TEMPLATE));
    }
    let mut faults = Vec::new();
    let mut objects = Vec::new();
    let mut texts = String::new();
    for name in &command.names {
        match (look_up(engine, command, name), template) {
            (Err(fault), _) => faults.push(fault.message),
            (Ok(object), None) => objects.push(object),
            (Ok(object), Some(template)) => match table::one_object(&with_absent_fields(object), template) {
                Ok(text) => texts.push_str(&text),
                Err(error) => faults.push(format!("template parsing error: {error}")),
            },
        }
    }
    match template {
        Some(_) => print(if texts.is_empty() { "\n" } else { &texts })?,
        None => {
            let shown = table::inspect(&objects, command.format.as_deref());
            print(&shown.map_err(|error| Fault::plain(error.to_string()))?)?
        }
    };
    if faults.is_empty() { Ok(0) } else { Err(Fault::plain(faults.join("\n"))) }
}

/// Fields that Docker's JSON leaves out when they are empty, and that its templates know all the same.
fn with_absent_fields(mut object: Value) -> Value {
    if let Some(state) = object.get_mut("State").and_then(Value::as_object_mut) {
        state.entry("Health").or_insert(Value::Null);
    }
    object
}

fn look_up(engine: &Engine, command: &Inspect, name: &str) -> Result<Value, Fault> {
    match command.kind {
        Some(ObjectKind::Container) => container(engine, command, name),
        Some(ObjectKind::Image) => image(engine, command, name),
        Some(ObjectKind::Volume) => volume(engine, name),
        None => {
            let found = any(engine, command, name)?;
            found.ok_or_else(|| Fault::plain(format!("Error: No such object: {name}")))
        }
    }
}

fn any(engine: &Engine, command: &Inspect, name: &str) -> Result<Option<Value>, Fault> {
    match engine.find(name) {
        Ok(_) => return container(engine, command, name).map(Some),
        Err(error) if error.kind != ErrorKind::NotFound => return Err(error.into()),
        Err(_) => {}
    }
    // What is no name of an image may be one of a volume.
    match engine.images()?.resolve(name) {
        Ok(found) => return Ok(Some(image_json(&found))),
        Err(error) => match error.kind() {
            sbx_image::ErrorKind::NotFound | sbx_image::ErrorKind::Invalid => {}
            _ => return Err(sbx_engine::Error::from(error).into()),
        },
    }
    match engine.volume(name) {
        Ok(volume) => Ok(Some(volume_json(engine, &volume))),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn container(engine: &Engine, command: &Inspect, name: &str) -> Result<Value, Fault> {
    let listed = engine.look_at(&engine.find(name)?)?;
    let sizes = if command.size { Some(engine.sizes(&listed.spec.id)?) } else { None };
    Ok(engine.inspect(&listed, sizes))
}

fn image(engine: &Engine, command: &Inspect, name: &str) -> Result<Value, Fault> {
    let found = engine.images()?.resolve(name).map_err(sbx_engine::Error::from)?;
    images::check_platform(&found, &command.platform, name)?;
    Ok(image_json(&found))
}

fn volume(engine: &Engine, name: &str) -> Result<Value, Fault> {
    Ok(volume_json(engine, &engine.volume(name)?))
}

fn names(references: &[Reference]) -> Vec<String> {
    references.iter().map(Reference::familiar).collect()
}

/// Docker's JSON of an image (Engine API, `ImageInspect`).
fn image_json(image: &Image) -> Value {
    let config = &image.config;
    let layers: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    let mut json = json!({
        "Id": image.id.to_string(),
        "RepoTags": names(&image.tags),
        "RepoDigests": names(&image.digests),
        "Parent": "",
        "Comment": config.comment,
        "Created": config.created.as_deref().unwrap_or(NEVER),
        "DockerVersion": "",
        "Author": config.author,
        "Config": config_json(image),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": { "Data": null, "Name": STORAGE_DRIVER },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": NEVER },
    });
    for (key, value) in [("Variant", &config.variant), ("OsVersion", &config.os_version)] {
        if !value.is_empty() {
            json[key] = json!(value);
        }
    }
    json
}

/// Go writes an empty list that nobody set as `null`, and leaves some out.
fn config_json(image: &Image) -> Value {
    let Ok(Value::Object(mut config)) = serde_json::to_value(&image.config.config) else {
        // Our own type is an object with text keys.
        return Value::Object(Map::new());
    };
    let is_empty = |value: Option<&Value>| match value {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        _ => false,
    };
    for key in ["Volumes", "OnBuild", "Entrypoint", "Cmd", "Env", "Labels"] {
        if is_empty(config.get(key)) {
            config.insert(key.to_owned(), Value::Null);
        }
    }
    if is_empty(config.get("ExposedPorts")) {
        config.remove("ExposedPorts");
    }
    Value::Object(config)
}

/// Docker's JSON of a volume.
fn volume_json(engine: &Engine, volume: &Volume) -> Value {
    let map = |map: &std::collections::BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        "CreatedAt": crate::units::rfc3339(volume.created.unix_seconds()),
        "Driver": "local",
        "Labels": map(&volume.labels),
        "Mountpoint": engine.volume_data(volume),
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    })
}
