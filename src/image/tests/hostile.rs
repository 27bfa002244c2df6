//! Registries that are broken, slow or evil: nothing unverified gets in, every failure is one clear error.

mod fixture;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fixture::double::{Asked, Double, Reply, honest};
use fixture::{Made, Place, Recorder, chain, noise, registries, request, tar_of};
use sbx_image::{Digest, Limits, Registries, Silent, Store, media_type, pull};
use serde_json::{Value, json};

/// Pulls from a double into a place; the error as a user sees it.
fn attempt(place: &Place, double: &Double) -> Result<sbx_image::PulledImage, String> {
    attempt_with(place, double, &registries(place.dir.path()))
}

fn attempt_with(place: &Place, double: &Double, registries: &Registries) -> Result<sbx_image::PulledImage, String> {
    pull(&place.store, &request(&double.image()), registries, &place.sink, &Silent).map_err(|error| chain(&error))
}

fn assert_whole(place: &Place, made: &Made) {
    assert_eq!(place.store.verify().unwrap(), []);
    let layers = place.sink.layers.lock().unwrap();
    assert_eq!(layers.len(), made.tars.len());
    for tar in &made.tars {
        assert!(layers[&Digest::of(tar)] == *tar);
    }
}

#[test]
fn an_honest_registry_gives_the_image() {
    let made = Made::new(1, 5, 300_000);
    let served = made.clone();
    let double = Double::new(move |asked| honest(&served, asked));
    let place = Place::new();
    let recorder = Recorder::default();
    let registries = registries(place.dir.path());
    let pulled = pull(&place.store, &request(&double.image()), &registries, &place.sink, &recorder).unwrap();
    assert!(pulled.newer);
    assert_eq!(pulled.digest, Digest::of(&made.manifest));
    assert_eq!(pulled.image.id, made.id());
    assert_eq!(pulled.image.size, made.tars.iter().map(|tar| tar.len() as u64).sum::<u64>());
    assert_eq!(pulled.image.config, made.parsed());
    assert_whole(&place, &made);
    assert_eq!(recorder.count("PullComplete"), 5);
    assert_eq!(recorder.count("1: Pulling from team/app"), 1);
    let again = pull(&place.store, &request(&double.image()), &registries, &place.sink, &recorder).unwrap();
    assert!(!again.newer);
    assert_eq!(recorder.count("AlreadyExists"), 5);
    assert_eq!(double.count(|asked| made.blobs.iter().any(|blob| asked.is_blob(blob))), 5);
    assert!(double.asked().iter().all(|asked| asked.header("user-agent").unwrap().starts_with("sbx/")));
    assert_eq!(place.files("ingest"), [""; 0]);
    assert_eq!(place.files("leases"), [""; 0]);
}

#[test]
fn a_flipped_bit_is_never_admitted_and_once_is_survived() {
    for always in [true, false] {
        let made = Made::new(2, 2, 200_000);
        let served = made.clone();
        let count = AtomicUsize::new(0);
        let double = Double::new(move |asked| {
            let mut reply = honest(&served, asked);
            if asked.is_blob(&served.blobs[1]) && (count.fetch_add(1, Ordering::SeqCst) == 0 || always) {
                reply.body[100_000] ^= 4;
            }
            reply
        });
        let place = Place::new();
        match attempt(&place, &double) {
            Ok(_) => assert!(!always),
            Err(error) => {
                assert!(always && error.contains("layer verification failed"), "{error}");
                assert!(!place.store.blob_path(&Digest::of(&made.blobs[1])).exists());
                assert!(place.store.list().unwrap().is_empty());
                assert!(!place.sink.layers.lock().unwrap().contains_key(&Digest::of(&made.tars[1])));
                continue;
            }
        }
        assert_whole(&place, &made);
    }
}

#[test]
fn broken_connections_are_resumed_where_they_broke() {
    let made = Made::new(3, 1, 1_000_000);
    let served = made.clone();
    let cuts = [1usize, 65_536, 65_537, 300_000, 999_999];
    let count = AtomicUsize::new(0);
    let double = Double::new(move |asked| {
        let reply = honest(&served, asked);
        if !asked.is_blob(&served.blobs[0]) {
            return reply;
        }
        match cuts.get(count.fetch_add(1, Ordering::SeqCst)) {
            Some(cut) => {
                let keep = cut.saturating_sub(asked.from()).min(reply.body.len());
                reply.cut(keep)
            }
            None => reply,
        }
    });
    let place = Place::new();
    attempt_with(&place, &double, &Registries { attempts: 10, ..registries(place.dir.path()) }).unwrap();
    assert_whole(&place, &made);
    let ranges: Vec<usize> = double.asked().iter().map(Asked::from).filter(|from| *from > 0).collect();
    assert_eq!(ranges, cuts);
}

#[test]
fn the_next_pull_goes_on_where_the_last_one_gave_up() {
    let made = Made::new(4, 1, 800_000);
    let served = made.clone();
    let count = AtomicUsize::new(0);
    let double = Double::new(move |asked| match asked.is_blob(&served.blobs[0]) {
        true if count.fetch_add(1, Ordering::SeqCst) == 0 => honest(&served, asked).cut(500_000),
        _ => honest(&served, asked),
    });
    let place = Place::new();
    let once = Registries { attempts: 1, ..registries(place.dir.path()) };
    let error = attempt_with(&place, &double, &once).unwrap_err();
    assert!(error.contains("download layer") && error.contains("127.0.0.1"), "{error}");
    assert_eq!(place.files("ingest"), [Digest::of(&made.blobs[0]).hex()]);
    attempt_with(&place, &double, &once).unwrap();
    assert_eq!(double.asked().last().unwrap().from(), 500_000);
    assert_whole(&place, &made);
}

#[test]
fn a_spoiled_partial_download_is_replaced() {
    let made = Made::new(5, 1, 400_000);
    let served = made.clone();
    let double = Double::new(move |asked| honest(&served, asked));
    let place = Place::new();
    let ingest = place.dir.path().join("images/ingest").join(Digest::of(&made.blobs[0]).hex());
    std::fs::write(&ingest, noise(99, 100_000)).unwrap();
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
    std::fs::remove_dir_all(place.dir.path().join("images")).unwrap();
    let place = Place { store: Store::open(place.dir.path()).unwrap(), sink: Default::default(), ..place };
    std::fs::write(&ingest, noise(99, 900_000)).unwrap();
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
}

#[test]
fn ranges_that_are_not_the_ones_asked_for_never_corrupt() {
    type Lie = fn(&[u8], &Asked) -> Reply;
    let lies: [(&str, Lie); 6] = [
        ("wrong start", |blob, _| {
            Reply::new(206, &blob[10..]).with("content-range", format!("bytes 10-{}/{}", blob.len() - 1, blob.len()))
        }),
        ("wrong total", |blob, asked| {
            Reply::new(206, &blob[asked.from()..])
                .with("content-range", format!("bytes {}-{}/{}", asked.from(), blob.len(), blob.len() + 1))
        }),
        ("no header", |blob, asked| Reply::new(206, &blob[asked.from()..])),
        ("nonsense", |blob, asked| Reply::new(206, &blob[asked.from()..]).with("content-range", "bytes x-/")),
        ("not satisfiable", |_, _| Reply::new(416, "")),
        ("ignored", |blob, _| Reply::new(200, blob)),
    ];
    for (name, lie) in lies {
        let made = Made::new(6, 1, 300_000);
        let served = made.clone();
        let count = AtomicUsize::new(0);
        let double = Double::new(move |asked| {
            if !asked.is_blob(&served.blobs[0]) {
                return honest(&served, asked);
            }
            match (count.fetch_add(1, Ordering::SeqCst), asked.from()) {
                (0, _) => honest(&served, asked).cut(150_000),
                (_, 0) => honest(&served, asked),
                _ => lie(&served.blobs[0], asked),
            }
        });
        let place = Place::new();
        attempt(&place, &double).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_whole(&place, &made);
    }
}

#[test]
fn more_than_announced_is_refused_at_once() {
    let made = Made::new(7, 1, 100_000);
    let served = made.clone();
    let double = Double::new(move |asked| {
        let mut reply = honest(&served, asked);
        if asked.is_blob(&served.blobs[0]) {
            reply.body.extend(noise(1, 50_000_000));
            reply.length = None;
        }
        reply
    });
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("sent more than its"), "{error}");
    place.assert_empty();
    assert_eq!(double.count(|asked| asked.is_blob(&made.blobs[0])), 1);
}

#[test]
fn chunked_bodies_without_length_are_fine() {
    let made = Made::new(8, 2, 100_000);
    let served = made.clone();
    let double = Double::new(move |asked| Reply { length: None, ..honest(&served, asked) });
    let place = Place::new();
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
}

#[test]
fn overload_is_waited_for_and_refusals_are_not() {
    let made = Made::new(9, 1, 50_000);
    for (status, retried) in
        [(429, true), (500, true), (502, true), (408, true), (403, false), (404, false), (400, false)]
    {
        let served = made.clone();
        let count = AtomicUsize::new(0);
        let double = Double::new(move |asked| match asked.path.as_str() {
            "/v2/" => honest(&served, asked),
            _ if count.fetch_add(1, Ordering::SeqCst) % 3 < 2 => Reply::new(status, "busy").with("retry-after", "0"),
            _ => honest(&served, asked),
        });
        let place = Place::new();
        match attempt(&place, &double) {
            Ok(_) => assert!(retried, "{status}"),
            Err(error) => {
                assert!(!retried, "{status}: {error}");
                assert_eq!(double.count(Asked::is_manifest), 1);
                place.assert_empty();
            }
        }
    }
}

/// Serves one document as the manifest.
fn with_manifest(bytes: Vec<u8>, kind: &'static str) -> (Place, Double) {
    let made = Made::new(10, 1, 1000);
    let double = Double::new(move |asked| match asked.is_manifest() {
        true => Reply::new(200, bytes.clone()).with("content-type", kind),
        false => honest(&made, asked),
    });
    (Place::new(), double)
}

#[test]
fn documents_that_are_not_an_image_are_refused() {
    let made = Made::new(10, 1, 1000);
    let plain: Value = serde_json::from_slice(&made.manifest).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = plain.clone();
        change(&mut value);
        value.to_string().into_bytes()
    };
    let oci = media_type::OCI_MANIFEST;
    let cases: Vec<(Vec<u8>, &'static str, &str)> = vec![
        (changed(&|v| v["manifests"] = json!([])), oci, "ambiguous"),
        (made.manifest.clone(), media_type::DOCKER_MANIFEST, "is not the declared type"),
        (made.manifest.clone(), media_type::OCI_INDEX, "is not the declared type"),
        (made.manifest.clone(), "application/json", "not an image manifest"),
        (b"<html>hello</html>".to_vec(), "text/html", "not an image manifest but \"text/html\""),
        (b"<html>hello</html>".to_vec(), oci, "not valid JSON"),
        (
            br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "schema 1",
        ),
        ([made.manifest.clone(), vec![b' '; 5 << 20]].concat(), oci, "longer than 4194304 bytes"),
        (format!("{{\"schemaVersion\":2,\"layers\":{}", "[".repeat(200_000)).into_bytes(), oci, "not valid JSON"),
        (
            changed(&|v| {
                v["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
            }),
            oci,
            "foreign",
        ),
        (changed(&|v| v["layers"] = json!([])), oci, "it has 1 layers, its manifest 0"),
        (changed(&|v| v["layers"][0]["size"] = json!(-1)), oci, "invalid value"),
        (changed(&|v| v["layers"][0]["size"] = json!(1u64 << 60)), oci, "more than"),
        (changed(&|v| v["config"]["size"] = json!(1u64 << 40)), oci, "more than"),
        (changed(&|v| v["config"]["size"] = json!(3)), oci, "instead of 3"),
        (changed(&|v| v["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")), oci, "invalid digest"),
        (
            changed(&|v| v["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")),
            oci,
            "not a container image",
        ),
    ];
    for (bytes, kind, words) in cases {
        let (place, double) = with_manifest(bytes, kind);
        let error = attempt(&place, &double).expect_err(words);
        assert!(error.contains(words), "{words}: {error}");
        place.assert_empty();
    }
}

#[test]
fn an_endless_manifest_without_length_is_cut_off() {
    let double = Double::new(|asked| match asked.is_manifest() {
        true => Reply { length: None, ..Reply::manifest(&vec![b' '; 32 << 20]) },
        false => Reply::new(200, "{}"),
    });
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("longer than 4194304 bytes"), "{error}");
}

#[test]
fn a_registry_that_lies_about_digests_is_refused() {
    let made = Made::new(11, 1, 1000);
    let other = Digest::of(b"other");
    let served = made.clone();
    let double = Double::new(move |asked| match asked.is_manifest() {
        true => Reply::manifest(&served.manifest).with("docker-content-digest", other),
        false => honest(&served, asked),
    });
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("announced"), "{error}");
    let served = made.clone();
    let double = Double::new(move |asked| match asked.is_manifest() {
        true => Reply::manifest(&served.manifest),
        false => honest(&served, asked),
    });
    let name = format!("{}/team/app@{other}", double.host());
    let error = pull(&place.store, &request(&name), &registries(place.dir.path()), &place.sink, &Silent).unwrap_err();
    assert!(error.to_string().contains(&format!("instead of {other}")), "{error}");
    let name = format!("{}/team/app:ignored@{}", double.host(), Digest::of(&made.manifest));
    let pulled = pull(&place.store, &request(&name), &registries(place.dir.path()), &place.sink, &Silent).unwrap();
    assert_eq!((pulled.image.tags.len(), pulled.image.digests.len()), (0, 1));
}

#[test]
fn a_layer_of_another_content_than_the_image_says_is_refused_and_removed() {
    let good = Made::new(12, 1, 50_000);
    let other = tar_of(&[("other", b"x")]);
    let made = Made::with_config(good.config.clone(), vec![fixture::gzip(&other)], good.tars.clone());
    let served = made.clone();
    let double = Double::new(move |asked| honest(&served, asked));
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("diff id"), "{error}");
    place.assert_empty();
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let made = Made::of(vec![vec![0; 40 << 20]]);
    let served = made.clone();
    let double = Double::new(move |asked| honest(&served, asked));
    let place = Place::new();
    let mut small = request(&double.image());
    small.limits = Limits { layer: 1 << 20, ..Limits::default() };
    let error = pull(&place.store, &small, &registries(place.dir.path()), &place.sink, &Silent).unwrap_err();
    assert!(chain(&error).contains("unpacks to more than 1048576 bytes"), "{error}");
    place.assert_empty();
}

#[test]
fn a_registry_that_drips_is_given_up() {
    let made = Made::new(13, 1, 200_000);
    let served = made.clone();
    let double = Double::new(move |asked| match asked.is_blob(&served.blobs[0]) {
        true => Reply { drip: Some((1, Duration::from_millis(50))), ..honest(&served, asked) },
        false => honest(&served, asked),
    });
    let place = Place::new();
    let impatient =
        Registries { attempts: 2, read_timeout: Duration::from_millis(500), ..registries(place.dir.path()) };
    let began = Instant::now();
    let error = attempt_with(&place, &double, &impatient).unwrap_err();
    assert!(error.contains("bytes came in 0.5 seconds"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(15));
    let silent = Double::new(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        _ => Reply { drip: Some((1, Duration::from_secs(3))), ..Reply::manifest(b"{}") },
    });
    let error = attempt_with(&place, &silent, &impatient).unwrap_err();
    assert!(error.contains("nothing came for 0.5 seconds"), "{error}");
}

#[test]
fn two_pulls_at_once_download_each_layer_once_and_garbage_collection_spares_them() {
    let made = Made::new(17, 4, 300_000);
    let served = made.clone();
    let double = Double::new(move |asked| match asked.path.contains("/blobs/") {
        true => Reply { drip: Some((16 << 10, Duration::from_millis(5))), ..honest(&served, asked) },
        false => honest(&served, asked),
    });
    let place = Place::new();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(place.dir.path()).unwrap();
                    let registries = registries(place.dir.path());
                    pull(&store, &request(&double.image()), &registries, &place.sink, &Silent).map_err(|e| chain(&e))
                })
            })
            .collect();
        while !pulls.iter().all(|pull| pull.is_finished()) {
            place.store.collect_garbage(&[], &mut |_| {}).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        for pull in pulls {
            pull.join().unwrap().unwrap();
        }
    });
    assert_whole(&place, &made);
    assert_eq!(double.count(|asked| made.blobs.iter().any(|blob| asked.is_blob(blob))), 4);
    assert_eq!((place.files("ingest"), place.files("leases")), (vec![], vec![]));
}

#[test]
fn a_layer_that_the_disk_has_spoiled_is_brought_again() {
    let made = Made::new(19, 2, 50_000);
    let served = made.clone();
    let double = Double::new(move |asked| honest(&served, asked));
    let place = Place::new();
    let image = attempt(&place, &double).unwrap().image;
    let spoil = |blob: &[u8]| {
        let path = place.store.blob_path(&Digest::of(blob));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20_000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    // Found while it is converted again.
    spoil(&made.blobs[0]);
    place.sink.layers.lock().unwrap().clear();
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
    // Found by verification.
    spoil(&made.blobs[1]);
    let damages = place.store.verify().unwrap();
    assert_eq!(damages[0].blob, Digest::of(&made.blobs[1]));
    assert!(place.store.discard_if_damaged(&damages[0].blob).unwrap().is_some());
    assert_eq!(place.store.discard_if_damaged(&Digest::of(&made.blobs[0])).unwrap(), None);
    attempt(&place, &double).unwrap();
    assert_whole(&place, &made);
    // Found by a start without the converted layer.
    spoil(&made.blobs[0]);
    place.sink.layers.lock().unwrap().clear();
    let ensure = || sbx_image::ensure_layers(&place.store, &image, Limits::default(), &place.sink, &Silent);
    let error = ensure().unwrap_err().to_string();
    assert!(error.contains(&Digest::of(&made.blobs[0]).to_string()) && error.contains("sbx pull"), "{error}");
    attempt(&place, &double).unwrap();
    place.sink.layers.lock().unwrap().clear();
    ensure().unwrap();
    assert_whole(&place, &made);
}

#[test]
fn one_blob_cannot_be_two_layers() {
    let made = Made::new(20, 1, 5_000);
    let mut config: Value = serde_json::from_slice(&made.config).unwrap();
    config["rootfs"]["diff_ids"] = json!([Digest::of(b"other"), Digest::of(&made.tars[0])]);
    let blobs = vec![made.blobs[0].clone(), made.blobs[0].clone()];
    let made = Made::with_config(config.to_string().into_bytes(), blobs, made.tars);
    let double = Double::new(move |asked| honest(&made, asked));
    let place = Place::new();
    let error = attempt(&place, &double).unwrap_err();
    assert!(error.contains("one blob of it cannot be two different layers"), "{error}");
    assert!(place.store.list().unwrap().is_empty());
}
