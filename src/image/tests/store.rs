//! The store: finding, naming, removing, collecting, checking.

mod fixture;

use fixture::{Made, Place};
use sbx_image::{Digest, Draft, Error, ErrorKind, Image, ImageUse, Limits, Reference, RemoveMode, Silent, Store};

fn add(place: &Place, made: &Made, names: &[&str]) -> Image {
    let mut draft = Draft::new(&place.store).unwrap();
    for blob in &made.blobs {
        draft.add_layer(&mut blob.as_slice(), Limits::default(), &place.sink, &Silent).unwrap();
    }
    let names = names.iter().map(|name| Reference::parse(name).unwrap()).collect();
    draft.finish(made.parsed(), names).unwrap()
}

fn remove(place: &Place, name: &str, mode: RemoveMode, uses: &[ImageUse]) -> Result<Vec<String>, String> {
    let removed = place.store.remove(name, mode, uses, &mut |diff_id| {
        place.sink.layers.lock().unwrap().remove(diff_id);
    });
    removed.map(|removal| removal.lines()).map_err(|error| error.to_string())
}

fn using(image: &Image, running: bool) -> [ImageUse; 1] {
    [ImageUse { image: image.id, container: "c0ffee".repeat(10), running }]
}

#[test]
fn images_are_found_by_name_digest_and_id() {
    let place = Place::new();
    let image = add(&place, &Made::new(41, 2, 1000), &["app:1", "host.test/x:y"]);
    let hex = image.id.hex();
    for name in [
        "app:1",
        "docker.io/library/app:1",
        "host.test/x:y",
        &format!("app@{}", image.manifest.digest),
        &image.id.to_string(),
        &hex,
        &hex[..12],
        &hex[..1],
        &format!("sha256:{}", &hex[..9]),
    ] {
        assert_eq!(place.store.resolve(name).unwrap(), image, "{name}");
    }
    for name in ["app", "app:2", "other", &format!("other@{}", image.manifest.digest), &"0".repeat(64), "sha256:zz"] {
        let error = place.store.resolve(name).unwrap_err();
        assert!(matches!(error, Error::NoSuchImage { .. }), "{name}: {error}");
    }
    assert_eq!(place.store.resolve("app").unwrap_err().to_string(), "No such image: app:latest");
    assert_eq!(place.store.resolve("App").unwrap_err().kind(), ErrorKind::Invalid);
    for n in 0..17 {
        add(&place, &Made::new(100 + n, 1, 10), &[]);
    }
    // 18 ids begin with 16 digits: at least one digit is shared.
    let shared = "0123456789abcdef".chars().find_map(|digit| match place.store.resolve(&digit.to_string()) {
        Err(Error::AmbiguousId { matches, .. }) => Some(matches.len()),
        _ => None,
    });
    assert!(shared.unwrap() >= 2);
}

#[test]
fn lists_tell_what_docker_tells() {
    let place = Place::new();
    let image = add(&place, &Made::new(42, 2, 1000), &["app:1", "app:2"]);
    let dangling = add(&place, &Made::new(43, 1, 1000), &[]);
    let listed = place.store.list().unwrap();
    let of = |id: Digest| listed.iter().find(|entry| entry.id == id).unwrap();
    assert_eq!(of(image.id).tags.len(), 2);
    assert_eq!((of(image.id).size, of(image.id).is_dangling()), (image.size, false));
    assert_eq!(of(image.id).labels["made"], "here");
    assert_eq!(of(image.id).platform.to_string(), "linux/amd64");
    assert_eq!(of(image.id).diff_ids, image.config.rootfs.diff_ids);
    assert_eq!(of(image.id).created, sbx_image::parse_rfc3339("2024-05-06T07:08:09Z"));
    assert!(of(dangling.id).is_dangling());
}

#[test]
fn a_tag_moves_and_leaves_a_dangling_image() {
    let place = Place::new();
    let first = add(&place, &Made::new(44, 1, 1000), &["app:1"]);
    let second = add(&place, &Made::new(45, 1, 1000), &["app:1"]);
    assert_eq!(place.store.resolve("app:1").unwrap().id, second.id);
    assert!(place.store.get(&first.id).unwrap().tags.is_empty());
    place.store.tag(&first.id.short(), "old").unwrap();
    assert_eq!(place.store.resolve("old:latest").unwrap().id, first.id);
    assert_eq!(place.store.tag("nothing", "x").unwrap_err().to_string(), "No such image: nothing:latest");
    assert!(place.store.tag("old", "UPPER").is_err());
    assert!(place.store.tag("old", &format!("x@{}", first.id)).is_err());
}

#[test]
fn removing_follows_dockers_rules() {
    let place = Place::new();
    let made = Made::new(46, 2, 1000);
    let image = add(&place, &made, &["app:1", "app:2"]);
    let diff_ids = &image.config.rootfs.diff_ids;
    assert_eq!(remove(&place, "app:1", RemoveMode::Normal, &[]).unwrap(), ["Untagged: app:1"]);
    let error = remove(&place, "app:2", RemoveMode::Normal, &using(&image, false)).unwrap_err();
    let words = format!(
        "conflict: unable to remove repository reference \"app:2\" (must force) - container c0ffeec0ffee is using its referenced image {}",
        image.id.short()
    );
    assert_eq!(error, words);
    let error = remove(&place, &image.id.hex(), RemoveMode::Normal, &using(&image, false)).unwrap_err();
    assert!(error.contains("(must be forced) - image is being used by stopped container c0ffeec0ffee"), "{error}");
    let error = remove(&place, &image.id.hex(), RemoveMode::Force, &using(&image, true)).unwrap_err();
    assert!(error.contains("(cannot be forced) - image is being used by running container c0ffeec0ffee"), "{error}");
    assert_eq!(place.store.verify().unwrap(), []);
    let lines = remove(&place, "app:2", RemoveMode::Normal, &[]).unwrap();
    let chain = |n: usize| format!("Deleted: {}", Digest::chain(&diff_ids[..n]).unwrap());
    assert_eq!(lines, ["Untagged: app:2".to_owned(), format!("Deleted: {}", image.id), chain(2), chain(1)]);
    place.assert_empty();
    assert_eq!(remove(&place, "app:2", RemoveMode::Force, &[]).unwrap_err(), "No such image: app:2");
}

#[test]
fn an_id_with_names_in_several_repositories_must_be_forced() {
    let place = Place::new();
    let image = add(&place, &Made::new(47, 1, 1000), &["app:1", "other:1"]);
    let error = remove(&place, &image.id.short(), RemoveMode::Normal, &[]).unwrap_err();
    assert!(error.contains("(must be forced) - image is referenced in multiple repositories"), "{error}");
    let lines = remove(&place, &image.id.short(), RemoveMode::Force, &using(&image, false)).unwrap();
    assert_eq!(lines[..2], ["Untagged: app:1", "Untagged: other:1"]);
    place.assert_empty();
}

#[test]
fn layers_that_another_image_has_stay() {
    let place = Place::new();
    let small = Made::new(48, 1, 1000);
    let base = add(&place, &small, &["base"]);
    let mut draft = Draft::on(&place.store, &base).unwrap();
    let extra = fixture::tar_of(&[("extra", b"x")]);
    draft.add_layer(&mut extra.as_slice(), Limits::default(), &place.sink, &Silent).unwrap();
    let child = draft.finish(small.parsed(), vec![Reference::parse("child").unwrap()]).unwrap();
    assert_eq!(child.layers[..1], base.layers);
    let lines = remove(&place, "child", RemoveMode::Normal, &[]).unwrap();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(place.store.verify().unwrap(), []);
    assert_eq!(place.sink.layers.lock().unwrap().len(), 1);
    remove(&place, "base", RemoveMode::Normal, &[]).unwrap();
    place.assert_empty();
}

#[test]
fn pruning_spares_what_is_used_or_not_chosen() {
    let place = Place::new();
    let used = add(&place, &Made::new(49, 1, 10), &[]);
    let dangling = add(&place, &Made::new(50, 1, 10), &[]);
    let named = add(&place, &Made::new(51, 1, 10), &["app"]);
    let removal = place.store.prune(&|image| image.is_dangling(), &using(&used, false), &mut |_| {}).unwrap();
    assert_eq!(removal.deleted[0], dangling.id);
    assert!(removal.freed > 0);
    let mut left: Vec<Digest> = place.store.list().unwrap().iter().map(|image| image.id).collect();
    left.sort();
    let mut want = vec![used.id, named.id];
    want.sort();
    assert_eq!(left, want);
}

#[test]
fn garbage_is_collected_and_nothing_else() {
    let place = Place::new();
    let made = Made::new(52, 2, 1000);
    add(&place, &made, &["app"]);
    let images = place.dir.path().join("images");
    let stray = Digest::of(b"stray");
    std::fs::write(place.store.blob_path(&stray), b"stray").unwrap();
    std::fs::write(images.join("ingest").join(stray.hex()), b"half").unwrap();
    std::fs::write(images.join("leases/.tmp-1-1"), stray.hex()).unwrap();
    std::fs::write(images.join("blobs/sha256/.tmp-4194305-0"), b"x").unwrap();
    let unknown = Digest::of(b"unknown layer");
    let mut forgotten = Vec::new();
    let known = place.store.resolve("app").unwrap().layers[0].diff_id;
    let swept = place.store.collect_garbage(&[known, unknown], &mut |diff_id| forgotten.push(*diff_id)).unwrap();
    assert_eq!((swept.blobs, swept.partials, forgotten), (2, 1, vec![unknown]));
    assert_eq!(place.files("blobs/sha256").len(), 4);
    assert_eq!((place.files("ingest"), place.files("leases")), (vec![], vec![]));
    // A draft that was dropped takes its layers along.
    let mut draft = Draft::new(&place.store).unwrap();
    draft.add_layer(&mut Made::new(53, 1, 10).tars[0].as_slice(), Limits::default(), &place.sink, &Silent).unwrap();
    assert_eq!(place.store.collect_garbage(&[], &mut |_| {}).unwrap(), Default::default());
    drop(draft);
    assert_eq!(place.files("blobs/sha256").len(), 4);
    assert_eq!(place.store.verify().unwrap(), []);
}

#[test]
fn damage_is_found_named_and_healed() {
    let place = Place::new();
    let made = Made::new(54, 2, 1000);
    let image = add(&place, &made, &["app:1"]);
    let (flipped, cut) = (image.layers[0].blob.digest, image.layers[1].blob.digest);
    let path = place.store.blob_path(&flipped);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[500] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let short = std::fs::read(place.store.blob_path(&cut)).unwrap();
    std::fs::write(place.store.blob_path(&cut), &short[..10]).unwrap();
    std::fs::remove_file(place.store.blob_path(&image.manifest.digest)).unwrap();
    let damages = place.store.verify().unwrap();
    let problem = |digest: Digest| {
        let found = damages.iter().find(|damage| damage.blob == digest).unwrap();
        assert_eq!(found.images, ["app:1"]);
        found.problem.clone()
    };
    assert_eq!(damages.len(), 3);
    assert!(problem(flipped).contains("has the digest"));
    assert!(problem(cut).contains("10 bytes long"));
    assert!(problem(image.manifest.digest).contains("missing"));
    let error = place.store.open_blob(&image.layers[1].blob).unwrap_err().to_string();
    assert!(error.contains(&cut.to_string()) && error.contains("sbx pull"), "{error}");
    std::fs::write(place.store.blob_path(&image.id), "{}").unwrap();
    let error = place.store.resolve("app:1").unwrap_err().to_string();
    assert!(error.contains(&image.id.to_string()) && error.contains("sbx pull"), "{error}");
    // It can still be removed.
    remove(&place, "app:1", RemoveMode::Normal, &[]).unwrap();
    place.assert_empty();
}

#[test]
fn state_files_that_are_broken_or_newer_are_named() {
    let place = Place::new();
    let image = add(&place, &Made::new(55, 1, 10), &["app"]);
    let refs = place.dir.path().join("images/refs.json");
    let good = std::fs::read_to_string(&refs).unwrap();
    for (text, words) in [
        (&good[..good.len() / 2], "remove the file"),
        ("", "remove the file"),
        (&good.replace("\"schema\": 1", "\"schema\": 2"), "of version 2"),
    ] {
        std::fs::write(&refs, text).unwrap();
        let error = place.store.resolve("app").unwrap_err().to_string();
        assert!(error.contains("refs.json") && error.contains(words), "{error}");
        assert!(place.store.collect_garbage(&[], &mut |_| panic!()).is_err());
    }
    std::fs::write(&refs, &good).unwrap();
    let record = place.dir.path().join(format!("images/records/{}.json", image.id.hex()));
    std::fs::write(&record, "{").unwrap();
    assert!(place.store.resolve("app").unwrap_err().to_string().contains("records"));
}

#[test]
fn many_writers_at_once_lose_nothing() {
    let place = Place::new();
    let image = add(&place, &Made::new(56, 1, 10), &["app"]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (dir, id) = (place.dir.path(), image.id);
            scope.spawn(move || {
                let store = Store::open(dir).unwrap();
                for n in 0..10 {
                    store.tag(&id.hex(), &format!("app:t{thread}-{n}")).unwrap();
                }
            });
        }
        for _ in 0..20 {
            place.store.list().unwrap();
        }
    });
    assert_eq!(place.store.get(&image.id).unwrap().tags.len(), 41);
}
