//! `save`, `load`, `import`: against skopeo in both directions, and against archives that are wrong.

mod fixture;

use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use fixture::{Made, Place, chain, gzip, have, noise, run, tar_of};
use sbx_image::{
    Digest, Draft, ImportRequest, Limits, LoadOptions, Loaded, Reference, Silent, import, load, media_type, save,
};
use serde_json::{Value, json};

/// Puts a made image into a place, its layers as they are compressed.
fn add(place: &Place, made: &Made, names: &[&str]) -> sbx_image::Image {
    let mut draft = Draft::new(&place.store).unwrap();
    for blob in &made.blobs {
        draft.add_layer(&mut blob.as_slice(), Limits::default(), &place.sink, &Silent).unwrap();
    }
    let names = names.iter().map(|name| Reference::parse(name).unwrap()).collect();
    draft.finish(made.parsed(), names).unwrap()
}

fn saved(place: &Place, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut out = Vec::new();
    save(&place.store, &names, &mut out).unwrap();
    out
}

fn load_bytes(place: &Place, bytes: &[u8]) -> Result<Vec<Loaded>, String> {
    let options = LoadOptions { platform: Some("linux/amd64".parse().unwrap()), ..LoadOptions::default() };
    load(&place.store, &mut Cursor::new(bytes), &options, &place.sink, &Silent).map_err(|error| chain(&error))
}

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn what_is_saved_is_loaded_with_the_same_digests() {
    let from = Place::new();
    let (one, two) = (Made::new(31, 3, 50_000), Made::new(32, 1, 10_000));
    let first = add(&from, &one, &["app:1", "app:2", "host.test:5000/other:x"]);
    let second = add(&from, &two, &[]);
    let bytes = saved(&from, &["app:1", "host.test:5000/other:x", &second.id.to_string()]);
    assert!(saved(&from, &["app:1", "host.test:5000/other:x", &second.id.to_string()]) == bytes, "reproducible");
    for stream in [bytes.clone(), gzip(&bytes), zstd::encode_all(bytes.as_slice(), 1).unwrap()] {
        let to = Place::new();
        let loaded = load_bytes(&to, &stream).unwrap();
        assert_eq!(loaded[0].lines(), ["Loaded image: app:1", "Loaded image: host.test:5000/other:x"]);
        assert_eq!(loaded[1].lines(), [format!("Loaded image ID: {}", second.id)]);
        let image = to.store.resolve("app:1").unwrap();
        assert_eq!((image.id, &image.manifest, &image.layers), (first.id, &first.manifest, &first.layers));
        assert_eq!(to.store.verify().unwrap(), []);
        assert!(one.tars.iter().all(|tar| to.sink.layers.lock().unwrap()[&Digest::of(tar)] == *tar));
        let converted = *to.sink.converted.lock().unwrap();
        load_bytes(&to, &stream).unwrap();
        assert_eq!(*to.sink.converted.lock().unwrap(), converted, "nothing is converted twice");
        assert_eq!((to.files("ingest"), to.files("leases")), (vec![], vec![]));
    }
    let to = Place::new();
    load_bytes(&to, &saved(&from, &["app"])).unwrap();
    let tags: Vec<String> = to.store.list().unwrap()[0].tags.iter().map(Reference::familiar).collect();
    assert_eq!(tags, ["app:1", "app:2"], "a bare name saves all its tags");
}

#[test]
fn skopeo_reads_what_we_save_in_both_formats() {
    if !have(&["skopeo"]) {
        return;
    }
    let place = Place::new();
    let made = Made::new(33, 3, 50_000);
    let image = add(&place, &made, &["team/app:1"]);
    let dir = tempfile::tempdir().unwrap();
    let archive = at(dir.path(), "saved.tar");
    std::fs::write(&archive, saved(&place, &["team/app:1"])).unwrap();
    for source in [
        format!("docker-archive:{archive}"),
        format!("docker-archive:{archive}:docker.io/team/app:1"),
        format!("oci-archive:{archive}:1"),
    ] {
        let inspected: Value = serde_json::from_str(&skopeo(&["inspect", "--config", &source])).unwrap();
        assert_eq!(inspected["rootfs"]["diff_ids"][2], made.parsed().rootfs.diff_ids[2].to_string(), "{source}");
        let copy = at(dir.path(), "copy");
        skopeo(&["copy", "--quiet", &source, &format!("dir:{copy}")]);
        let manifest = std::fs::read(dir.path().join("copy/manifest.json")).unwrap();
        if source.starts_with("oci") {
            assert_eq!(Digest::of(&manifest), image.manifest.digest);
        }
    }
}

#[test]
fn archives_of_skopeo_are_loaded() {
    if !have(&["skopeo"]) {
        return;
    }
    let place = Place::new();
    // skopeo 1.9 cannot unpack zstd for a docker-archive: one layer, which is gzip.
    let made = Made::new(34, 1, 50_000);
    add(&place, &made, &["team/app:1"]);
    let dir = tempfile::tempdir().unwrap();
    let archive = at(dir.path(), "saved.tar");
    std::fs::write(&archive, saved(&place, &["team/app:1"])).unwrap();
    let source = format!("oci-archive:{archive}:1");
    let docker = at(dir.path(), "docker.tar");
    skopeo(&["copy", "--quiet", &source, &format!("docker-archive:{docker}:other/name:7")]);
    let to = Place::new();
    let loaded = load_bytes(&to, &std::fs::read(&docker).unwrap()).unwrap();
    assert_eq!(loaded[0].lines(), ["Loaded image: other/name:7"]);
    assert!(loaded[0].image.layers.iter().all(|layer| layer.blob.digest == layer.diff_id), "layers are kept plain");
    assert_eq!(to.store.verify().unwrap(), []);
    let oci = at(dir.path(), "oci.tar");
    skopeo(&["copy", "--quiet", &source, &format!("oci-archive:{oci}:third/name:8")]);
    let to = Place::new();
    let loaded = load_bytes(&to, &std::fs::read(&oci).unwrap()).unwrap();
    assert_eq!(loaded[0].lines(), ["Loaded image: third/name:8"]);
    assert_eq!(loaded[0].image.config.config.labels["made"], "here");
}

/// Entries of a tar, to be put together differently.
fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    };
    archive.entries().unwrap().map(read).filter(|(name, _)| !name.ends_with('/')).collect()
}

fn together(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = entries.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    tar_of(&files)
}

#[test]
fn the_order_of_entries_does_not_matter() {
    let from = Place::new();
    add(&from, &Made::new(35, 3, 5_000), &["app:1"]);
    let mut parts = entries(&saved(&from, &["app:1"]));
    for _ in 0..parts.len() {
        parts.rotate_left(1);
        let to = Place::new();
        assert_eq!(load_bytes(&to, &together(&parts)).unwrap()[0].lines(), ["Loaded image: app:1"]);
    }
    parts.reverse();
    load_bytes(&Place::new(), &together(&parts)).unwrap();
}

#[test]
fn an_old_docker_archive_with_links_is_loaded() {
    let made = Made::new(36, 2, 5_000);
    let (bottom, top) = (&made.tars[0], &made.tars[1]);
    let config = made.config.clone();
    let name = format!("{}.json", made.id().hex());
    let manifest = json!([{"Config": name, "RepoTags": ["old:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    put("manifest.json", manifest.to_string().as_bytes());
    put(&name, &config);
    put("a/layer.tar", bottom);
    put("real/layer.tar", top);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "b/layer.tar", "../real/layer.tar").unwrap();
    let place = Place::new();
    let loaded = load_bytes(&place, &builder.into_inner().unwrap()).unwrap();
    assert_eq!((loaded[0].image.id, loaded[0].lines()), (made.id(), vec!["Loaded image: old:1".to_owned()]));
    assert_eq!(place.store.verify().unwrap(), []);
}

#[test]
fn bad_archives_are_one_error_and_leave_nothing() {
    let from = Place::new();
    let made = Made::new(37, 2, 20_000);
    add(&from, &made, &["app:1"]);
    let good = entries(&saved(&from, &["app:1"]));
    let layer = format!("blobs/sha256/{}", Digest::of(&made.blobs[0]).hex());
    type Files = Vec<(String, Vec<u8>)>;
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut parts = good.clone();
        change(&mut parts);
        together(&parts)
    };
    let without = |name: &str| changed(&|parts| parts.retain(|(have, _)| have != name));
    let replaced = |name: &str, content: &[u8]| {
        changed(&|parts| parts.iter_mut().filter(|(have, _)| have == name).for_each(|part| part.1 = content.to_vec()))
    };
    let whole = together(&good);
    let docker_only = |manifest: Value, files: &[(&str, &[u8])]| {
        let text = manifest.to_string();
        tar_of(&[files, &[("manifest.json", text.as_bytes())]].concat())
    };
    let config = made.config.as_slice();
    let tar = made.tars[0].as_slice();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "it is empty"),
        (b"hello, this is no archive at all".to_vec(), "malformed tar"),
        (vec![b'x'; 5000], "it is not a tar"),
        (b"BZh91AY&SY.....".to_vec(), "bzip2"),
        (b"\xfd7zXZ\0\0\0\0".to_vec(), "xz"),
        (tar_of(&[("hello.txt", b"hi")]), "neither index.json nor manifest.json"),
        (tar_of(&[("repositories", b"{}")]), "before Docker 1.10"),
        (without(&layer), "is not in it"),
        (replaced(&layer, b"other"), "is damaged"),
        (replaced("index.json", b"{}"), "schemaVersion"),
        (replaced("index.json", br#"{"schemaVersion":2,"manifests":[]}"#), "it holds no image"),
        (replaced("index.json", &vec![b' '; 5 << 20]), "longer than"),
        (replaced("manifest.json", b"[{}]"), "manifest.json"),
        (whole[..whole.len() / 2].to_vec(), "cut off"),
        (gzip(&whole)[..5000].to_vec(), "cannot read the image archive"),
        (docker_only(json!([{"Config": "../../etc/passwd", "Layers": []}]), &[]), "is not in it"),
        (
            docker_only(
                json!([{"Config": "c", "RepoTags": ["UPPER"], "Layers": ["l", "l"]}]),
                &[("c", config), ("l", tar)],
            ),
            "lowercase",
        ),
        (docker_only(json!([{"Config": "c", "Layers": ["l"]}]), &[("c", config), ("l", tar)]), "its manifest 1"),
        (
            docker_only(json!([{"Config": "c", "Layers": ["l", "m"]}]), &[("c", config), ("l", tar), ("m", b"no")]),
            "diff id",
        ),
        (
            docker_only(json!([{"Config": "c", "Layers": ["l", "m"]}]), &[("c", config), ("l", tar), ("m", b"BZh9..")]),
            "bzip2",
        ),
        (docker_only(json!([]), &[("c", config)]), "it holds no image"),
    ];
    for (bytes, words) in cases {
        let place = Place::new();
        let error = load_bytes(&place, &bytes).expect_err(words);
        assert!(error.contains(words), "{words}: {error}");
        assert!(place.store.list().unwrap().is_empty(), "{words}");
        for dir in ["blobs/sha256", "ingest", "leases", "records"] {
            assert_eq!(place.files(dir), [""; 0], "{words}: {dir}");
        }
    }
}

#[test]
fn junk_beside_an_image_is_not_kept_and_links_in_circles_end() {
    let from = Place::new();
    let made = Made::new(38, 1, 5_000);
    add(&from, &made, &["app:1"]);
    let mut parts = entries(&saved(&from, &["app:1"]));
    parts.push(("junk".into(), noise(1, 100_000)));
    let place = Place::new();
    load_bytes(&place, &together(&parts)).unwrap();
    assert_eq!(place.files("blobs/sha256").len(), 3);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, target) in [("a", "b"), ("b", "a")] {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, name, target).unwrap();
    }
    let manifest = br#"[{"Config":"a","Layers":[]}]"#;
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    builder.append_data(&mut header, "manifest.json", manifest.as_slice()).unwrap();
    let error = load_bytes(&Place::new(), &builder.into_inner().unwrap()).unwrap_err();
    assert!(error.contains("\"a\" is not in it"), "{error}");
}

#[test]
fn import_makes_an_image_of_one_layer() {
    let tar = tar_of(&[("bin/sh", b"#!"), ("etc/passwd", b"root")]);
    for (stream, kind) in [
        (tar.clone(), media_type::OCI_LAYER),
        (gzip(&tar), media_type::OCI_LAYER_GZIP),
        (zstd::encode_all(tar.as_slice(), 1).unwrap(), media_type::OCI_LAYER_ZSTD),
    ] {
        let place = Place::new();
        let request = ImportRequest {
            reference: Some(Reference::parse("mine:1").unwrap()),
            changes: vec!["CMD [\"/bin/sh\"]".into(), "ENV A=b".into()],
            platform: Some("linux/arm64".parse().unwrap()),
            ..ImportRequest::default()
        };
        let image = import(&place.store, &mut stream.as_slice(), &request, &place.sink, &Silent).unwrap();
        assert_eq!(image.layers[0].blob.media_type, kind);
        assert_eq!((image.layers[0].diff_id, image.size), (Digest::of(&tar), tar.len() as u64));
        assert_eq!(image.config.config.cmd.as_deref().unwrap(), ["/bin/sh"]);
        assert_eq!(
            (image.config.architecture.as_str(), image.config.history[0].comment.as_str()),
            ("arm64", "Imported from -")
        );
        assert_eq!(place.store.resolve("mine:1").unwrap(), image);
        assert_eq!(place.store.verify().unwrap(), []);
        let history = place.store.history(&image);
        assert_eq!((history.len(), history[0].size, history[0].id), (1, tar.len() as u64, Some(image.id)));
    }
    for (stream, changes, words) in [
        (b"".as_slice(), vec![], "it is empty"),
        (b"BZh9aaaa".as_slice(), vec![], "bzip2"),
        (tar.as_slice(), vec!["RUN x".to_owned()], "not a valid change command"),
        (&gzip(&tar)[..40], vec![], "layer"),
    ] {
        let place = Place::new();
        let request = ImportRequest { changes, ..ImportRequest::default() };
        let error = import(&place.store, &mut { stream }, &request, &place.sink, &Silent).unwrap_err();
        assert!(chain(&error).contains(words), "{error}");
        place.assert_empty();
        assert_eq!(place.files("ingest"), [""; 0]);
    }
}
