//! The image's configuration under the user's, merged as Docker does (moby `daemon/commit.go`, `merge`).

use std::collections::BTreeMap;

use crate::config::{Config, Healthcheck};
use crate::environment::name_of;

use super::{Invalid, Resolver};

pub(super) fn merge(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    check_platform(resolver)?;
    let image = &resolver.context.image.config;
    let config = &mut resolver.request.config;
    take_if_empty(&mut config.user, &image.user);
    take_if_empty(&mut config.working_dir, &image.working_dir);
    take_if_empty(&mut config.stop_signal, &image.stop_signal);
    add_missing(&mut config.exposed_ports, &image.exposed_ports);
    add_missing(&mut config.volumes, &image.volumes);
    add_missing(&mut config.labels, &image.labels);
    environment(&mut config.env, &image.env);
    command(config, image)?;
    health(&mut config.healthcheck, image.healthcheck.as_ref());
    if config.shell.is_empty() {
        config.shell.clone_from(&image.shell);
    }
    if config.on_build.is_empty() {
        config.on_build.clone_from(&image.on_build);
    }
    Ok(())
}

/// Another architecture needs an emulator that Docker does not look for either; it only says so.
fn check_platform(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    let (image, machine) = (&resolver.context.image.platform, &resolver.context.machine.platform);
    let os = image.split('/').next().unwrap_or_default();
    if !matches!(os, "" | "linux") {
        let message = format!("image operating system {os:?} cannot be used on this platform: linux is needed");
        return Err(Invalid::new("Config.Image", message));
    }
    let architecture = |platform: &str| platform.split('/').nth(1).unwrap_or_default().to_owned();
    if !image.is_empty() && architecture(image) != architecture(machine) && resolver.request.platform.is_empty() {
        let message = format!(
            "The requested image's platform ({image}) does not match the detected host platform ({machine}) and no \
             specific platform was requested"
        );
        resolver.warn(message);
    }
    Ok(())
}

fn take_if_empty(value: &mut String, image: &str) {
    if value.is_empty() {
        image.clone_into(value);
    }
}

fn add_missing<V: Clone>(map: &mut BTreeMap<String, V>, image: &BTreeMap<String, V>) {
    for (key, value) in image {
        map.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// The user's variables first, then those of the image that the user says nothing about. A bare `NAME` says
/// something: it stays, and removes the variable when the process is made.
fn environment(env: &mut Vec<String>, image: &[String]) {
    let missing = image.iter().filter(|entry| !env.iter().any(|own| name_of(own) == name_of(entry)));
    let missing: Vec<String> = missing.cloned().collect();
    env.extend(missing);
}

/// An entry point of the user's own takes the image's command away with the image's entry point, since the one was
/// written for the other. `--entrypoint ""` arrives as `[""]`.
fn command(config: &mut Config, image: &Config) -> Result<(), Invalid> {
    let own_entrypoint = config.entrypoint.as_ref().is_some_and(|words| !words.is_empty());
    if !own_entrypoint {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    match words.next() {
        None => Err(Invalid::new("Config.Cmd", "no command specified")),
        Some(first) if first.is_empty() => Err(Invalid::new("Config.Cmd", "the command to run is an empty string")),
        Some(_) => Ok(()),
    }
}

/// Single fields of the user's check may be left to the image.
fn health(check: &mut Option<Healthcheck>, image: Option<&Healthcheck>) {
    let Some(image) = image else { return };
    let Some(check) = check else {
        *check = Some(image.clone());
        return;
    };
    if check.test.is_empty() {
        check.test.clone_from(&image.test);
    }
    for (value, inherited) in [
        (&mut check.interval, image.interval),
        (&mut check.timeout, image.timeout),
        (&mut check.start_period, image.start_period),
        (&mut check.start_interval, image.start_interval),
        (&mut check.retries, image.retries),
    ] {
        if *value == 0 {
            *value = inherited;
        }
    }
}
