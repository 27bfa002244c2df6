//! Mounts: their forms, who wins, and what is refused.

use super::{Case, strings};
use crate::config::Empty;
use crate::host_config::{BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions};
use crate::spec::{MountKind, MountOrigin, MountPoint};
use crate::testing;

fn bound(text: &str) -> MountPoint {
    let spec = Case::with(|case| case.request.host_config.binds = strings(&[text])).spec();
    assert_eq!(spec.mounts.len(), 1, "{text}");
    spec.mounts[0].clone()
}

fn mount(kind: &str, source: &str, target: &str) -> Mount {
    Mount { r#type: kind.into(), source: source.into(), target: target.into(), ..Mount::default() }
}

fn mounted(mount: Mount) -> Result<MountPoint, (&'static str, String)> {
    let case = Case::with(|case| case.request.host_config.mounts = vec![mount]);
    case.resolve().map(|(spec, _)| spec.mounts[0].clone()).map_err(|error| (error.field, error.message))
}

fn refused(mount: Mount, message: &str) {
    let (field, found) = mounted(mount).unwrap_err();
    assert_eq!(field, "HostConfig.Mounts");
    assert!(found.contains(message), "{found:?} does not say {message:?}");
}

#[test]
fn the_short_form_is_read_as_docker_reads_it() {
    let bind = bound("/srv/../data//x:/x/./y:ro,rslave");
    assert_eq!((bind.kind, bind.source.as_str(), bind.destination.as_str()), (MountKind::Bind, "/data/x", "/x/y"));
    assert_eq!((bind.rw, bind.propagation.as_str(), bind.mode.as_str()), (false, "rslave", "ro,rslave"));
    assert!(bind.options.create_source);
    let volume = bound("data:/data");
    assert_eq!((volume.kind, volume.name.as_str(), volume.driver.as_str()), (MountKind::Volume, "data", "local"));
    assert_eq!((volume.source.as_str(), volume.mode.as_str()), ("/var/lib/sbx/volumes/data/_data", "z"));
    assert!(volume.rw && volume.options.copy_data && !volume.options.anonymous);
    assert!(!bound("data:/data:nocopy").options.copy_data);
    let anonymous = bound("/data");
    assert_eq!((anonymous.kind, anonymous.name.len()), (MountKind::Volume, 64));
    assert!(anonymous.options.anonymous);
    assert_eq!(bound("/data").name, anonymous.name, "the name follows from the container and the place");
    assert_ne!(bound("/other").name, anonymous.name);
    assert_eq!(bound("/a:/b").propagation, "rprivate");
    assert!(bound("/a:/b:z,cached").rw);
}

#[test]
fn the_short_form_is_refused_as_docker_refuses_it() {
    for (text, message) in [
        ("", "invalid volume specification: ''"),
        (":/x", "invalid volume specification: ':/x'"),
        ("/x:ro", "invalid volume specification: '/x:ro'"),
        ("/a:/b:ro:more", "invalid volume specification"),
        ("/a:/b:fast", "invalid mode: fast"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("/a:b", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/../..", "destination can't be '/'"),
        ("a/b:/x", "includes invalid characters for a local volume name"),
        ("a:/x", "volume name is too short"),
        ("data:/x:rshared", "propagation is for binds"),
        ("/a:/x:nocopy", "nocopy is for volumes"),
        ("data", "mount path must be absolute"),
        (".:/x", "volume name is too short"),
        ("./a:/x", "includes invalid characters"),
    ] {
        let error = Case::with(|case| case.request.host_config.binds = strings(&[text])).resolve().unwrap_err();
        assert_eq!(error.field, "HostConfig.Binds", "{text}");
        assert!(error.message.contains(message), "{text}: {:?} does not say {message:?}", error.message);
    }
}

#[test]
fn the_long_form_is_read_as_docker_reads_it() {
    let bind = mounted(Mount {
        read_only: true,
        bind_options: Some(BindOptions { propagation: "shared".into(), non_recursive: true, ..BindOptions::default() }),
        ..mount("bind", "/a", "/b")
    })
    .unwrap();
    assert_eq!((bind.propagation.as_str(), bind.rw, bind.mode.as_str()), ("shared", false, ""));
    assert!(bind.options.non_recursive && !bind.options.create_source);
    let tmpfs = mounted(Mount {
        tmpfs_options: Some(TmpfsOptions { size_bytes: 1 << 20, mode: 0o700, options: vec![vec!["exec".into()]] }),
        ..mount("tmpfs", "", "/t")
    })
    .unwrap();
    assert_eq!(tmpfs.options.tmpfs, strings(&["nosuid", "nodev", "rprivate", "mode=700", "size=1m", "exec"]));
    let volume = mounted(Mount {
        volume_options: Some(VolumeOptions {
            no_copy: true,
            subpath: "a/b".into(),
            driver_config: Some(DriverConfig {
                name: "local".into(),
                options: [("type", "tmpfs"), ("device", "tmpfs")].map(|(key, value)| (key.into(), value.into())).into(),
            }),
            ..VolumeOptions::default()
        }),
        ..mount("volume", "data", "/v")
    })
    .unwrap();
    assert!(!volume.options.copy_data);
    assert_eq!((volume.options.subpath.as_str(), volume.options.driver_options.len()), ("a/b", 2));
    assert!(mounted(mount("volume", "", "/v")).unwrap().options.anonymous);
    let image = mounted(Mount {
        image_options: Some(ImageOptions { subpath: "etc".into() }),
        ..mount("image", "debian", "/i")
    })
    .unwrap();
    assert_eq!((image.kind, image.name.as_str(), image.rw), (MountKind::Image, "debian", false));
}

#[test]
fn the_long_form_is_refused_as_docker_refuses_it() {
    refused(mount("bind", "/a", ""), "invalid mount config for type \"bind\": field Target must not be empty");
    refused(mount("bind", "/a", "b"), "mount path must be absolute");
    refused(mount("bind", "/a", "/"), "invalid specification: destination can't be '/'");
    refused(mount("bind", "", "/b"), "field Source must not be empty");
    refused(mount("bind", "a", "/b"), "invalid mount path: 'a' mount path must be absolute");
    refused(mount("npipe", "a", "/b"), "mount type unknown");
    refused(mount("", "a", "/b"), "mount type unknown");
    refused(mount("cluster", "a", "/b"), "mount type unknown");
    refused(mount("tmpfs", "x", "/t"), "field Source must not be specified");
    refused(mount("image", "", "/i"), "field Source must not be empty");
    refused(mount("volume", "a/b", "/v"), "includes invalid characters");
    refused(Mount { consistency: "fast".into(), ..mount("bind", "/a", "/b") }, "invalid consistency: fast");
    let binding =
        |options: BindOptions, read_only| Mount { bind_options: Some(options), read_only, ..mount("bind", "/a", "/b") };
    refused(
        binding(BindOptions { propagation: "loud".into(), ..BindOptions::default() }, false),
        "invalid propagation mode: loud",
    );
    refused(
        binding(BindOptions { read_only_non_recursive: true, ..BindOptions::default() }, false),
        "mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive",
    );
    refused(
        binding(BindOptions { read_only_force_recursive: true, ..BindOptions::default() }, false),
        "!ReadOnly && BindOptions.ReadOnlyForceRecursive",
    );
    let both = BindOptions { read_only_force_recursive: true, read_only_non_recursive: true, ..BindOptions::default() };
    refused(binding(both, true), "mount options conflict: ReadOnlyNonRecursive");
    for (kind, source) in [("volume", "data"), ("tmpfs", ""), ("image", "x")] {
        let wrong = Mount { bind_options: Some(BindOptions::default()), ..mount(kind, source, "/x") };
        refused(wrong, "field BindOptions must not be specified");
    }
    let wrong = Mount { volume_options: Some(VolumeOptions::default()), ..mount("bind", "/a", "/x") };
    refused(wrong, "field VolumeOptions must not be specified");
    let wrong = Mount { tmpfs_options: Some(TmpfsOptions::default()), ..mount("bind", "/a", "/x") };
    refused(wrong, "field TmpfsOptions must not be specified");
    let tmpfs = |options: TmpfsOptions| Mount { tmpfs_options: Some(options), ..mount("tmpfs", "", "/t") };
    refused(
        tmpfs(TmpfsOptions { options: vec![strings(&["suid"])], ..TmpfsOptions::default() }),
        "invalid option: suid",
    );
    refused(tmpfs(TmpfsOptions { mode: 0o17777, ..TmpfsOptions::default() }), "invalid tmpfs mode");
}

#[test]
fn volume_options_are_checked() {
    let volume =
        |source: &str, options: VolumeOptions| Mount { volume_options: Some(options), ..mount("volume", source, "/v") };
    for subpath in ["../x", "/abs", "a/../../b", ".."] {
        let options = VolumeOptions { subpath: subpath.into(), ..VolumeOptions::default() };
        refused(volume("data", options), "subpath must be a relative path within the volume");
    }
    let inside = VolumeOptions { subpath: "a/../b".into(), ..VolumeOptions::default() };
    assert!(mounted(volume("data", inside)).is_ok());
    let anonymous = VolumeOptions { subpath: "a".into(), ..VolumeOptions::default() };
    refused(volume("", anonymous), "must not set Subpath when using anonymous volumes");
    let driver = |name: &str, key: &str| VolumeOptions {
        driver_config: Some(DriverConfig { name: name.into(), options: [(key.to_owned(), "x".to_owned())].into() }),
        ..VolumeOptions::default()
    };
    refused(volume("data", driver("nfs", "type")), "plugin \"nfs\" not found");
    refused(volume("data", driver("local", "foo")), "invalid option: \"foo\"");
    refused(volume("data", driver("", "device")), "missing required option: \"type\"");
    let image = Mount { image_options: Some(ImageOptions { subpath: "..".into() }), ..mount("image", "x", "/i") };
    refused(image, "subpath must be a relative path");
}

#[test]
fn a_missing_source_is_refused_unless_it_is_to_be_made() {
    let missing = |mount: Mount| {
        Case::with(|case| {
            case.request.host_config.mounts = vec![mount];
            case.absent.insert("/missing".into());
        })
        .resolve()
    };
    let error = missing(mount("bind", "/missing", "/x")).unwrap_err();
    assert_eq!(error.message, "invalid mount config for type \"bind\": bind source path does not exist: /missing");
    let made = Mount {
        bind_options: Some(BindOptions { create_mountpoint: true, ..BindOptions::default() }),
        ..mount("bind", "/missing", "/x")
    };
    assert!(missing(made).unwrap().0.mounts[0].options.create_source);
}

#[test]
fn two_mounts_at_one_place_are_refused() {
    for change in [
        (|case: &mut Case| case.request.host_config.binds = strings(&["/a:/x", "/b:/x/"])) as fn(&mut Case),
        |case| {
            case.request.host_config.binds = strings(&["/a:/x"]);
            case.request.host_config.mounts = vec![mount("tmpfs", "", "/x")];
        },
        |case| {
            case.request.host_config.binds = strings(&["/a:/x"]);
            case.request.host_config.tmpfs.insert("/x".into(), String::new());
        },
        |case| case.request.host_config.mounts = vec![mount("tmpfs", "", "/x"), mount("volume", "", "/y/../x")],
    ] {
        let error = Case::with(change).resolve().unwrap_err();
        assert_eq!((error.field, error.message.as_str()), ("HostConfig.Mounts", "Duplicate mount point: /x"));
    }
}

#[test]
fn volumes_of_the_image_give_way() {
    let spec = Case::with(|case| {
        for path in ["/one", "/two/", "/three", "/four"] {
            case.image.config.volumes.insert(path.into(), Empty {});
        }
        case.request.host_config.binds = strings(&["/srv:/one"]);
        case.request.host_config.mounts = vec![mount("volume", "data", "/two")];
        case.request.host_config.tmpfs.insert("/three".into(), "size=1m".into());
    })
    .spec();
    let found: Vec<_> =
        spec.mounts.iter().map(|mount| (mount.destination.as_str(), mount.kind, mount.origin)).collect();
    assert_eq!(
        found,
        [
            ("/four", MountKind::Volume, MountOrigin::Anonymous),
            ("/one", MountKind::Bind, MountOrigin::Volume),
            ("/three", MountKind::Tmpfs, MountOrigin::Tmpfs),
            ("/two", MountKind::Volume, MountOrigin::Mount),
        ]
    );
}

#[test]
fn mounts_of_other_containers_come_along_and_give_way() {
    let mut anonymous = testing::volume_mount(&"f".repeat(64), "/anonymous");
    anonymous.options.anonymous = true;
    let from = vec![testing::volume_mount("data", "/data"), testing::volume_mount("covered", "/covered"), anonymous];
    let spec = Case::with(|case| {
        case.request.host_config.volumes_from = strings(&["db:ro"]);
        case.request.host_config.binds = strings(&["/srv:/covered"]);
        case.image.config.volumes.insert("/data".into(), Empty {});
        case.inherited = vec![("db:ro".into(), from)];
    })
    .spec();
    let by_place = |place: &str| spec.mounts.iter().find(|mount| mount.destination == place).unwrap();
    let data = by_place("/data");
    assert_eq!((data.name.as_str(), data.rw, data.origin), ("data", false, MountOrigin::Inherited));
    assert!(!data.options.copy_data);
    assert!(!by_place("/anonymous").options.anonymous, "it is the other container's");
    assert_eq!(by_place("/covered").kind, MountKind::Bind);
    for (entry, message) in [
        ("", "volumes-from specification cannot be an empty string"),
        ("db:fast", "invalid mode: fast"),
        ("db:nocopy", "invalid mode: nocopy"),
        ("db:rshared", "invalid mode: rshared"),
        (":ro", "invalid volumes-from specification"),
        ("gone", "No such container: gone"),
    ] {
        let error = Case::with(|case| case.request.host_config.volumes_from = strings(&[entry])).resolve().unwrap_err();
        assert_eq!(
            (error.field, error.message.contains(message)),
            ("HostConfig.VolumesFrom", true),
            "{entry}: {}",
            error.message
        );
    }
}

#[test]
fn tmpfs_options_are_checked() {
    for (path, options, message) in [
        ("run", "", "mount path must be absolute"),
        ("/", "", "destination can't be '/'"),
        ("/run", "huge=always", "invalid tmpfs option \"huge\""),
        ("/run", "size=x", "invalid tmpfs option \"size=x\""),
    ] {
        let case = Case::with(|case| drop(case.request.host_config.tmpfs.insert(path.into(), options.into())));
        let error = case.resolve().unwrap_err();
        assert_eq!(error.field, "HostConfig.Tmpfs");
        assert!(error.message.contains(message), "{}", error.message);
    }
    let read_only =
        Case::with(|case| drop(case.request.host_config.tmpfs.insert("/run".into(), "ro,mode=755".into()))).spec();
    assert!(!read_only.mounts[0].rw);
}
