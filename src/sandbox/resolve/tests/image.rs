//! The image under the request, as Docker merges them.

use super::{Case, strings};
use crate::config::{Empty, Healthcheck};

type Words<'a> = Option<&'a [&'a str]>;

#[test]
fn entry_point_and_command_follow_docker() {
    // image entry point, image command, own entry point, own command, result
    let cases: [(Words<'_>, Words<'_>, Words<'_>, Words<'_>, &[&str]); 11] = [
        (None, Some(&["sh"]), None, None, &["sh"]),
        (Some(&["e"]), Some(&["c"]), None, None, &["e", "c"]),
        (Some(&["e"]), Some(&["c"]), None, Some(&["x"]), &["e", "x"]),
        (Some(&["e"]), Some(&["c"]), Some(&["o"]), None, &["o"]),
        (Some(&["e"]), Some(&["c"]), Some(&["o"]), Some(&["x"]), &["o", "x"]),
        (Some(&["e"]), Some(&["c"]), Some(&[""]), Some(&["x"]), &["x"]),
        (None, None, None, Some(&["x", "y"]), &["x", "y"]),
        (Some(&["e", "f"]), None, None, None, &["e", "f"]),
        (Some(&["e"]), Some(&["c"]), Some(&[]), None, &["c"]),
        (Some(&["e"]), Some(&["c"]), None, Some(&[]), &["e", "c"]),
        (None, Some(&["c"]), Some(&["o", "p"]), None, &["o", "p"]),
    ];
    for (image_entry, image_command, own_entry, own_command, expected) in cases {
        let owned = |words: Words<'_>| words.map(strings);
        let spec = Case::with(|case| {
            case.image.config.entrypoint = owned(image_entry);
            case.image.config.cmd = owned(image_command);
            case.request.config.entrypoint = owned(own_entry);
            case.request.config.cmd = owned(own_command);
        })
        .spec();
        assert_eq!(spec.args(), strings(expected), "{image_entry:?} {image_command:?} {own_entry:?} {own_command:?}");
    }
}

#[test]
fn no_command_at_all_is_refused() {
    let none = |change: fn(&mut Case)| {
        let error = Case::with(|case| {
            case.image.config.cmd = None;
            change(case);
        })
        .resolve()
        .unwrap_err();
        assert_eq!((error.field, error.message.as_str()), ("Config.Cmd", "no command specified"));
    };
    none(|_| {});
    none(|case| case.request.config.entrypoint = Some(strings(&[""])));
    none(|case| case.image.config.cmd = Some(Vec::new()));
}

#[test]
fn variables_are_merged_by_name() {
    for (own, expected) in [
        (&[][..], &["PATH=/bin", "LANG=C"][..]),
        (&["A=1"], &["A=1", "PATH=/bin", "LANG=C"]),
        (&["LANG=de"], &["LANG=de", "PATH=/bin"]),
        (&["LANG"], &["LANG", "PATH=/bin"]),
        (&["PATH="], &["PATH=", "LANG=C"]),
    ] {
        assert_eq!(Case::with(|case| case.request.config.env = strings(own)).spec().config.env, strings(expected));
    }
}

#[test]
fn single_values_are_the_users_or_the_images() {
    let image = |case: &mut Case| {
        let config = &mut case.image.config;
        config.user = "www".into();
        config.working_dir = "/srv//www/".into();
        config.stop_signal = "SIGQUIT".into();
        config.exposed_ports.insert("80/tcp".into(), Empty {});
        config.volumes.insert("/data".into(), Empty {});
    };
    let spec = Case::with(image).spec();
    let config = &spec.config;
    assert_eq!(
        (config.user.as_str(), config.working_dir.as_str(), config.stop_signal.as_str()),
        ("www", "/srv/www", "SIGQUIT")
    );
    assert_eq!(config.labels["from"], "image");
    let own = Case::with(|case| {
        image(case);
        let config = &mut case.request.config;
        config.user = "0".into();
        config.working_dir = "/".into();
        config.stop_signal = "9".into();
        config.labels.insert("from".into(), "me".into());
        config.exposed_ports.insert("90/tcp".into(), Empty {});
        config.volumes.insert("/more".into(), Empty {});
    })
    .spec();
    assert_eq!(
        (own.config.user.as_str(), own.config.working_dir.as_str(), own.config.stop_signal.as_str()),
        ("0", "/", "9")
    );
    assert_eq!(own.config.labels["from"], "me");
    assert_eq!(own.config.exposed_ports.len(), 2);
    assert_eq!(own.config.volumes.len(), 2);
    assert_eq!(own.mounts.len(), 2);
}

#[test]
fn single_fields_of_the_health_check_are_inherited() {
    let image =
        Healthcheck { test: strings(&["CMD", "probe"]), interval: 5_000_000_000, retries: 4, ..Healthcheck::default() };
    let merged = |own: Option<Healthcheck>| {
        Case::with(|case| {
            case.image.config.healthcheck = Some(image.clone());
            case.request.config.healthcheck = own;
        })
        .spec()
        .config
        .healthcheck
        .unwrap()
    };
    assert_eq!(merged(None), image);
    let own = merged(Some(Healthcheck { interval: 7_000_000_000, ..Healthcheck::default() }));
    assert_eq!(own, Healthcheck { interval: 7_000_000_000, ..image.clone() });
    let none = merged(Some(Healthcheck { test: strings(&["NONE"]), ..Healthcheck::default() }));
    assert_eq!(none.test, strings(&["NONE"]));
}

#[test]
fn what_an_image_says_wrong_is_refused_like_what_a_user_says_wrong() {
    for (field, change) in [
        ("Config.WorkingDir", (|case: &mut Case| case.image.config.working_dir = "rel".into()) as fn(&mut Case)),
        ("Config.User", |case| case.image.config.user = "4294967296".into()),
        ("Config.StopSignal", |case| case.image.config.stop_signal = "SIGFOO".into()),
        ("Config.Env", |case| case.image.config.env = strings(&["=x"])),
        ("Config.ExposedPorts", |case| case.image.config.exposed_ports = [("x".to_owned(), Empty {})].into()),
        ("Config.Volumes", |case| case.image.config.volumes = [("../x".to_owned(), Empty {})].into()),
        ("Config.Image", |case| case.image.platform = "windows/amd64".into()),
    ] {
        assert_eq!(Case::with(change).resolve().unwrap_err().field, field);
    }
}

#[test]
fn labels_of_an_image_configure_nothing() {
    let labelled = Case::with(|case| {
        for label in
            ["io.sbx.isolation", "dev.sbx.isolation", "containerd.io/runtime", "org.opencontainers.image.privileged"]
        {
            case.image.config.labels.insert(label.into(), "vm".into());
        }
    })
    .spec();
    let plain = Case::default().spec();
    assert_eq!(labelled.host_config, plain.host_config);
    assert_eq!(labelled.isolation, plain.isolation);
    assert_eq!(labelled.security, plain.security);
}
