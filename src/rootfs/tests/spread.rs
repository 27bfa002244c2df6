//! Where directories of containers go.

use std::process::Command;

use sbx_rootfs::spread;

use crate::scratch::Scratch;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn children_are_spread_on_ext4_without_a_journal_only() {
    let scratch = Scratch::new();
    for (features, expected) in [("^has_journal", true), ("has_journal", false)] {
        let (image, point) = (scratch.path("image"), scratch.path("point"));
        let (image, point) = (image.to_str().unwrap(), point.to_str().unwrap());
        run("truncate", &["-s", "64M", image]);
        run("mkfs.ext4", &["-q", "-F", "-O", features, image]);
        std::fs::create_dir_all(point).unwrap();
        run("mount", &["-o", "loop", image, point]);
        let containers = format!("{point}/containers");
        std::fs::create_dir(&containers).unwrap();
        assert_eq!(spread(containers.as_ref()).unwrap(), expected);
        // Asked again, nothing is to be done.
        assert!(!spread(containers.as_ref()).unwrap());
        let attributes = run("lsattr", &["-d", &containers]);
        assert_eq!(attributes.split_whitespace().next().unwrap().contains('T'), expected, "{attributes}");
        run("umount", &[point]);
    }
    // Another kind of file system.
    assert!(!spread("/proc/self".as_ref()).unwrap());
}
