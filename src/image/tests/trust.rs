//! Who gets what: credentials, tokens, redirects, plain HTTP, mirrors.

mod fixture;

use fixture::double::{Asked, Double, Reply, honest};
use fixture::{Made, Place, Recorder, chain, registries, request};
use sbx_image::{Digest, PulledImage, Silent, pull};
use serde_json::json;

/// Pulls from a double into a place; the error as a user sees it.
fn attempt(place: &Place, double: &Double) -> Result<PulledImage, String> {
    let registries = registries(place.dir.path());
    pull(&place.store, &request(&double.image()), &registries, &place.sink, &Silent).map_err(|error| chain(&error))
}

fn assert_whole(place: &Place, made: &Made) {
    assert_eq!(place.store.verify().unwrap(), []);
    let layers = place.sink.layers.lock().unwrap();
    assert!(made.tars.iter().all(|tar| layers[&Digest::of(tar)] == *tar));
}

#[test]
fn endless_redirects_come_to_an_end() {
    let double = Double::new(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        path => Reply::new(307, "").with("location", format!("{path}x")),
    });
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("more than 10 redirects"), "{error}");
    assert!(double.asked().len() < 15);
}

#[test]
fn plain_http_elsewhere_is_refused() {
    let double = Double::new(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        _ => Reply::new(307, "").with("location", "http://registry.invalid/x"),
    });
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("registry.invalid") && error.contains("plain HTTP is only for loopback"), "{error}");
}

fn docker_config(place: &Place, host: &str) {
    // bob:secret
    let config = json!({"auths": {host: {"auth": "Ym9iOnNlY3JldA=="}}});
    std::fs::write(place.dir.path().join("config.json"), config.to_string()).unwrap();
}

#[test]
fn credentials_do_not_follow_redirects() {
    let made = Made::new(14, 2, 20_000);
    let served = made.clone();
    let elsewhere = Double::new(move |asked| honest(&served, asked));
    let target = elsewhere.host();
    let served = made.clone();
    let double = Double::new(move |asked| {
        if asked.header("authorization") != Some("Basic Ym9iOnNlY3JldA==") {
            return Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\"");
        }
        match asked.is_manifest() {
            true => honest(&served, asked),
            false => Reply::new(307, "").with("location", format!("http://{target}{}", asked.path)),
        }
    });
    let place = Place::new();
    docker_config(&place, &double.host());
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
    assert_eq!(elsewhere.asked().len(), 3);
    assert!(elsewhere.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn tokens_come_from_the_service_that_the_registry_names() {
    let made = Made::new(15, 3, 20_000);
    let service = Double::new(|asked| match asked.header("authorization") {
        Some("Basic Ym9iOnNlY3JldA==") => Reply::new(200, r#"{"token":"good","expires_in":300}"#),
        _ => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
    });
    let realm = format!("http://{}/token?x=y", service.host());
    let served = made.clone();
    let double = Double::new(move |asked| match asked.header("authorization") {
        Some("Bearer good") => honest(&served, asked),
        _ => Reply::new(401, "").with(
            "www-authenticate",
            format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:team/app:pull\""),
        ),
    });
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("pull access denied for 127.0.0.1") && error.contains("sbx login 127.0.0.1"), "{error}");
    docker_config(&place, &double.host());
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
    let asked = service.asked();
    assert_eq!(asked.len(), 2, "one token serves the whole pull");
    assert!(asked[1].path.starts_with("/token?x=y&"), "{}", asked[1].path);
    assert!(asked[1].path.contains("service=reg") && asked[1].path.contains("scope=repository%3Ateam%2Fapp%3Apull"));
}

#[test]
fn a_token_service_over_plain_http_elsewhere_gets_nothing() {
    let double = Double::new(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        _ => Reply::new(401, "").with("www-authenticate", "Bearer realm=\"http://auth.invalid/token\",service=\"s\""),
    });
    let place = Place::new();
    docker_config(&place, &double.host());
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("auth.invalid") && error.contains("neither HTTPS nor loopback"), "{error}");
}

#[test]
fn mirrors_are_tried_first_and_their_failure_is_not_final() {
    let made = Made::new(16, 2, 30_000);
    let served = made.clone();
    let origin = Double::new(move |asked| honest(&served, asked));
    let broken = Double::new(|_| Reply::new(404, ""));
    let served = made.clone();
    // Has the manifest but not the layers.
    let half = Double::new(move |asked| match asked.path.contains("/blobs/") && !asked.is_blob(&served.config) {
        true => Reply::new(404, ""),
        false => honest(&served, asked),
    });
    let place = Place::new();
    let mut registries = registries(place.dir.path());
    let mirrors = vec![format!("http://{}", broken.host()), format!("http://{}/cache", half.host())];
    registries.host_mirrors.insert(origin.host(), mirrors);
    let recorder = Recorder::default();
    pull(&place.store, &request(&origin.image()), &registries, &place.sink, &recorder).unwrap();
    assert_whole(&place, &made);
    assert_eq!(recorder.count(&format!("mirror {} failed", broken.host())), 1);
    assert!(half.asked().iter().any(|asked| asked.path == "/v2/cache/team/app/manifests/1"));
    assert_eq!(origin.count(Asked::is_manifest), 0);
    assert_eq!(origin.count(|asked| asked.path.contains("/blobs/")), 2);
}

#[test]
fn an_identity_token_is_exchanged_for_an_access_token() {
    let made = Made::new(18, 1, 20_000);
    let service = Double::new(|asked| {
        let wanted = ["grant_type=refresh_token", "refresh_token=the+one", "service=reg", "client_id=sbx"];
        match wanted.iter().all(|field| asked.body.contains(field)) && asked.header("authorization").is_none() {
            true => Reply::new(200, r#"{"access_token":"good"}"#),
            false => Reply::new(401, ""),
        }
    });
    let realm = format!("http://{}/token", service.host());
    let served = made.clone();
    let double = Double::new(move |asked| match asked.header("authorization") {
        Some("Bearer good") => honest(&served, asked),
        _ => Reply::new(401, "").with("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"reg\"")),
    });
    let place = Place::new();
    let config = json!({"auths": {double.host(): {"identitytoken": "the one"}}});
    std::fs::write(place.dir.path().join("config.json"), config.to_string()).unwrap();
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
    assert!(service.asked()[0].body.contains("scope=repository%3Ateam%2Fapp%3Apull"));
}
