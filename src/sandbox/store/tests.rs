//! The store under ordinary use, under contention and after crashes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::thread;

use super::{Durability, Store, StoreError};
use crate::id::Id;
use crate::spec::SandboxSpec;
use crate::state::{Event, StartCause, Status};
use crate::testing::spec;
use crate::timestamp::Timestamp;

fn with_id(name: &str, id: &str) -> SandboxSpec {
    SandboxSpec { id: id.parse().unwrap(), ..spec(name) }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("state")).unwrap();
    (directory, store)
}

fn started() -> Event {
    Event::Started {
        pid: 9,
        supervisor: 8,
        boot_id: "b".into(),
        at: Timestamp::NEVER,
        cause: StartCause::User,
        health_checked: false,
    }
}

#[test]
fn a_container_is_written_read_and_removed() {
    let (_directory, store) = store();
    let spec = spec("web");
    let files = store.create(&spec, Durability::Durable).unwrap();
    assert!(files.log().ends_with(format!("{}-json.log", spec.id)));
    assert_eq!(store.spec(&spec.id).unwrap(), spec);
    assert_eq!(store.state(&spec.id).unwrap().status, Status::Created);
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&spec.id));
    store.apply(&spec.id, Durability::Rebuildable, started()).unwrap();
    assert_eq!(store.state(&spec.id).unwrap().pid, 9);
    store.remove(&spec.id).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(store.orphans().unwrap().is_empty());
    assert!(matches!(store.spec(&spec.id), Err(StoreError::NotFound(_))));
    store.remove(&spec.id).unwrap();
    assert_eq!(fs::read_dir(store.root().join("containers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().join("names")).unwrap().count(), 0);
}

#[test]
fn an_illegal_move_is_refused_and_writes_nothing() {
    let (_directory, store) = store();
    let spec = spec("web");
    store.create(&spec, Durability::Rebuildable).unwrap();
    let error = store.apply(&spec.id, Durability::Rebuildable, Event::Unpaused).unwrap_err();
    assert_eq!(error.to_string(), format!("container {}: container is not paused", spec.id));
    assert_eq!(store.state(&spec.id).unwrap().status, Status::Created);
}

#[test]
fn references_are_found_in_dockers_order() {
    let (_directory, store) = store();
    let first = with_id("web", &format!("abc{}", "1".repeat(61)));
    let second = with_id("abcd", &format!("abd{}", "2".repeat(61)));
    let third = with_id("other", &format!("abcd{}", "3".repeat(60)));
    for spec in [&first, &second, &third] {
        store.create(spec, Durability::Rebuildable).unwrap();
    }
    for (reference, expected) in [
        (first.id.as_str(), &first),
        ("web", &first),
        ("/web", &first),
        ("abc1", &first),
        ("abcd", &second),
        ("abd", &second),
        ("abcd3", &third),
    ] {
        assert_eq!(store.find(reference).unwrap(), expected.id, "{reference}");
    }
    for (reference, message) in [
        ("ab", "Multiple IDs found with provided prefix: ab"),
        ("nope", "No such container: nope"),
        ("", "No such container: "),
        ("../web", "No such container: ../web"),
        ("we", "No such container: we"),
        ("ffff", "No such container: ffff"),
    ] {
        assert_eq!(store.find(reference).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_name_in_use_is_refused_in_dockers_words() {
    let (_directory, store) = store();
    let (first, second) = (spec("web"), spec("web"));
    store.create(&first, Durability::Rebuildable).unwrap();
    let error = store.create(&second, Durability::Rebuildable).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{}\". You have to remove (or \
             rename) that container to be able to reuse that name.",
            first.id
        )
    );
    assert_eq!(store.list().unwrap(), [first.id]);
    assert_eq!(fs::read_dir(store.root().join("containers")).unwrap().count(), 1);
    assert!(matches!(store.create(&spec("a/b"), Durability::Rebuildable), Err(StoreError::Name(_))));
}

#[test]
fn of_many_who_make_up_the_same_names_each_gets_one() {
    let (_directory, store) = store();
    let names = || (1..8).map(|n| format!("calm_bell{n}"));
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                store.create_as(spec("calm_bell"), names(), Durability::Rebuildable).unwrap();
            });
        }
    });
    let taken: BTreeSet<String> = store.list().unwrap().iter().map(|id| store.spec(id).unwrap().name).collect();
    assert_eq!(taken, names().chain(["calm_bell".to_owned()]).collect());
    let none_left = store.create_as(spec("calm_bell"), names(), Durability::Rebuildable);
    assert!(matches!(none_left, Err(StoreError::NameInUse { name, .. }) if name == "calm_bell7"));
    assert_eq!(fs::read_dir(store.root().join("containers")).unwrap().count(), 8);
}

#[test]
fn of_many_who_want_one_name_one_gets_it() {
    let (_directory, store) = store();
    let barrier = Barrier::new(8);
    let winners: Vec<bool> = thread::scope(|scope| {
        let attempt = || {
            let spec = spec("web");
            barrier.wait();
            match store.create(&spec, Durability::Rebuildable) {
                Ok(_) => true,
                Err(StoreError::NameInUse { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(attempt)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(winners.iter().filter(|&&won| won).count(), 1);
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(store.orphans().unwrap().is_empty());
}

#[test]
fn concurrent_updates_lose_nothing() {
    let (_directory, store) = store();
    let spec = spec("web");
    store.create(&spec, Durability::Rebuildable).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let count = |state: &mut crate::state::State| {
                        state.restart_count += 1;
                        Ok::<_, StoreError>(())
                    };
                    store.update_state(&spec.id, Durability::Rebuildable, count).unwrap();
                }
            });
        }
    });
    assert_eq!(store.state(&spec.id).unwrap().restart_count, 200);
}

#[test]
fn renaming_moves_the_name_and_frees_the_old_one() {
    let (_directory, store) = store();
    let (first, second) = (spec("one"), spec("two"));
    store.create(&first, Durability::Rebuildable).unwrap();
    store.create(&second, Durability::Rebuildable).unwrap();
    assert!(matches!(store.rename(&first.id, "two"), Err(StoreError::NameInUse { .. })));
    assert!(matches!(store.rename(&first.id, "one"), Err(StoreError::SameName)));
    assert!(matches!(store.rename(&first.id, "a b"), Err(StoreError::Name(_))));
    store.rename(&first.id, "/three").unwrap();
    assert_eq!(store.find("three").unwrap(), first.id);
    assert!(store.find("one").is_err());
    assert_eq!(store.spec(&first.id).unwrap().name, "three");
    store.create(&spec("one"), Durability::Rebuildable).unwrap();
}

#[test]
fn the_name_of_a_dead_owner_is_taken_over() {
    let (_directory, store) = store();
    let gone = Id::random().unwrap();
    for content in [gone.as_str(), "", "nonsense", "\u{fffd}"] {
        fs::write(store.root().join("names/web"), content).unwrap();
        let spec = spec("web");
        store.create(&spec, Durability::Rebuildable).unwrap();
        assert_eq!(store.find("web").unwrap(), spec.id);
        store.remove(&spec.id).unwrap();
    }
    // A crash in the middle of a rename: the name points to a container that still has its old one.
    let renamed = spec("old");
    store.create(&renamed, Durability::Rebuildable).unwrap();
    fs::write(store.root().join("names/new"), renamed.id.as_str()).unwrap();
    assert!(store.find("new").is_err());
    store.create(&spec("new"), Durability::Rebuildable).unwrap();
    assert_eq!(store.find("old").unwrap(), renamed.id);
}

#[test]
fn what_a_crash_leaves_is_an_orphan_and_no_container() {
    let (_directory, store) = store();
    let spec = spec("web");
    store.create(&spec, Durability::Rebuildable).unwrap();
    fs::remove_file(store.root().join("names/web")).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(store.find(spec.id.as_str()).is_err());
    assert_eq!(store.orphans().unwrap(), std::slice::from_ref(&spec.id));
    store.remove(&spec.id).unwrap();
    assert!(store.orphans().unwrap().is_empty());
}

/// A store in which the making of one container has come to `stage` when its maker was killed.
fn killed_while_making(stage: usize) -> (tempfile::TempDir, Store, SandboxSpec) {
    let (directory, store) = store();
    let spec = spec("web");
    let intent = store.root().join("containers").join(format!(".new-{}", spec.id));
    if stage == 0 {
        fs::create_dir(&intent).unwrap();
        return (directory, store, spec);
    }
    let making = store.begin_making(&spec.id).unwrap();
    if stage > 1 {
        fs::create_dir(making.files().directory).unwrap();
        super::write_json(&making.files().spec(), &spec, Durability::Rebuildable).unwrap();
        fs::write(making.name(), spec.id.as_str()).unwrap();
    }
    if stage > 2 {
        fs::rename(making.files().directory, store.files(&spec.id).directory).unwrap();
    }
    if stage > 3 {
        fs::hard_link(making.name(), store.root().join("names/web")).unwrap();
    }
    (directory, store, spec)
}

#[test]
fn a_maker_that_is_killed_leaves_a_container_or_nothing() {
    for stage in 0..=4 {
        let (_directory, store, spec) = killed_while_making(stage);
        store.sweep_unfinished().unwrap();
        let entries = fs::read_dir(store.root().join("containers")).unwrap().count();
        if stage < 4 {
            assert!(store.find("web").is_err(), "{stage}");
            assert_eq!(entries, 0, "{stage}");
        } else {
            assert_eq!(store.find("web").unwrap(), spec.id);
            assert_eq!(entries, 1);
        }
    }
}

#[test]
fn makers_and_sweepers_do_not_disturb_each_other() {
    let (_directory, store) = store();
    let maker = thread::spawn({
        let store = store.clone();
        move || {
            for _ in 0..500 {
                let spec = spec("web");
                store.create(&spec, Durability::Rebuildable).unwrap();
                assert_eq!(store.find("web").unwrap(), spec.id);
                store.remove(&spec.id).unwrap();
            }
        }
    });
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !maker.is_finished() {
                    store.sweep_unfinished().unwrap();
                    for left in store.left_aside().unwrap() {
                        store.release_names(&left).unwrap();
                    }
                }
            });
        }
    });
    maker.join().unwrap();
    assert_eq!(fs::read_dir(store.root().join("containers")).unwrap().count(), 0);
}

#[test]
fn a_removal_that_is_killed_before_the_name_is_free_is_finished_later() {
    let (_directory, store) = store();
    let spec = spec("web");
    let files = store.create(&spec, Durability::Rebuildable).unwrap();
    fs::rename(&files.directory, store.root().join("containers").join(format!(".removed-{}", spec.id))).unwrap();
    assert!(store.find("web").is_err());
    let left = store.left_aside().unwrap();
    store.release_names(&left[0]).unwrap();
    assert_eq!(fs::read_dir(store.root().join("names")).unwrap().count(), 0);
}

#[test]
fn what_is_being_removed_is_found_and_says_whether_its_volumes_go() {
    let (_directory, store) = store();
    let (kept, gone) = (spec("kept"), spec("gone"));
    store.create(&kept, Durability::Rebuildable).unwrap();
    store.create(&gone, Durability::Rebuildable).unwrap();
    assert!(store.left_aside().unwrap().is_empty());
    store.set_aside(&kept.id).unwrap();
    store.set_aside_with_volumes(&gone.id).unwrap();
    assert!(store.list().unwrap().is_empty() && store.orphans().unwrap().is_empty());
    let left = store.left_aside().unwrap();
    assert_eq!(left.len(), 2);
    let with_volumes: Vec<_> = left.iter().filter_map(|left| left.volumes_of.as_ref()).map(|spec| &spec.id).collect();
    assert_eq!(with_volumes, [&gone.id]);
}

#[test]
fn a_container_in_the_making_is_no_orphan() {
    let (_directory, store) = store();
    let spec = spec("web");
    let making = store.begin_making(&spec.id).unwrap();
    fs::create_dir(store.files(&spec.id).directory).unwrap();
    assert!(store.orphans().unwrap().is_empty());
    making.end().unwrap();
    assert_eq!(store.orphans().unwrap().len(), 1);
}

#[test]
fn a_damaged_container_is_listed_named_and_can_be_removed() {
    let (_directory, store) = store();
    let spec = spec("web");
    let files = store.create(&spec, Durability::Rebuildable).unwrap();
    for content in ["", "{", "{\"schema\":1}"] {
        fs::write(files.spec(), content).unwrap();
        let error = store.spec(&spec.id).unwrap_err();
        assert!(error.to_string().contains("container.json is damaged"), "{error}");
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&spec.id));
        assert_eq!(store.find("web").unwrap(), spec.id);
        let listed = store.specs().unwrap();
        assert_eq!(listed[0].id, spec.id);
        assert!(matches!(listed[0].spec, Err(StoreError::Corrupt { .. })));
    }
    fs::write(files.spec(), "{\"schema\":99,\"later\":1}").unwrap();
    assert!(store.spec(&spec.id).unwrap_err().to_string().contains("newer sbx"));
    store.remove(&store.find("web").unwrap()).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(store.find("web").is_err());
}

#[test]
fn a_specification_in_the_wrong_directory_is_damage() {
    let (_directory, store) = store();
    let (first, second) = (spec("one"), spec("two"));
    store.create(&first, Durability::Rebuildable).unwrap();
    let files = store.create(&second, Durability::Rebuildable).unwrap();
    fs::copy(store.files(&first.id).spec(), files.spec()).unwrap();
    assert!(matches!(store.spec(&second.id), Err(StoreError::Corrupt { .. })));
}

#[test]
fn containers_come_and_go_while_others_look() {
    let (_directory, store) = store();
    thread::scope(|scope| {
        for worker in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..30 {
                    let spec = spec(&format!("w{worker}-{round}"));
                    store.create(&spec, Durability::Rebuildable).unwrap();
                    assert_eq!(store.find(&spec.name).unwrap(), spec.id);
                    store.remove(&spec.id).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..60 {
                store.list().unwrap();
                // A container that is being removed by somebody looks like one that a crash left; nobody is harmed
                // when it is removed twice.
                for orphan in store.orphans().unwrap() {
                    store.remove(&orphan).unwrap();
                }
            }
        });
    });
    let names: BTreeSet<_> =
        fs::read_dir(store.root().join("names")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.is_empty(), "{names:?}");
    assert!(store.list().unwrap().is_empty());
}
