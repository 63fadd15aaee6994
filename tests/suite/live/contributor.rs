//! A contributor who is not root and has sudo: what tests that run as root have written is the contributor's afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::{command, packages};

/// A user id that nobody has.
const USER: u32 = 61_417;

/// In a mount namespace with an `/etc` of its own, which knows a user with sudo: becomes that user and runs the arguments.
const BECOME: &str = r#"
set -e
cp -a /etc "$ETC"
mount --bind "$ETC" /etc
echo "contributor:x:$ID:$ID::/:/bin/sh" >> /etc/passwd
echo "contributor:x:$ID:" >> /etc/group
echo "contributor:*:20000::::::" >> /etc/shadow
echo "contributor ALL=(ALL) NOPASSWD:SETENV: ALL" > /etc/sudoers.d/contributor
chmod 0440 /etc/sudoers.d/contributor
exec setpriv --reuid "$ID" --regid "$ID" --clear-groups -- "$@"
"#;

/// What a test as root does: builds fixtures with the user's compilers, fills the cache, writes a golden file anew.
const WRITE: &str = r#"
[ "$(id -u)" = 0 ]
case "$PATH" in /contributor/bin:*) ;; *) exit 8 ;; esac
mkdir -p target/fixtures "$PARKWARDEN_CACHE/go" tests/golden
for file in target/fixtures/leaks "$PARKWARDEN_CACHE/go/go" tests/golden/leaks.txt; do
    echo content > "$file"
done
ln -s /etc/hostname target/fixtures/link
exit 7
"#;

fn belongs_to_user(path: &Path) {
    let owner = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).uid();
    assert_eq!(owner, USER, "{} is somebody else's", path.display());
    if path.is_dir() && !path.is_symlink() {
        let entries = fs::read_dir(path).expect("readable").map(|entry| entry.expect("an entry").path());
        entries.for_each(|entry| belongs_to_user(&entry));
    }
}

#[test]
fn what_root_writes_for_a_user_with_sudo_is_the_users() {
    packages::program("sudo").expect("installed");
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let [tree, cache] = ["tree", "cache"].map(|name| dir.path().join(name));
    let script = tree.join(command::AS_ROOT);
    for directory in [&tree, &tree.join("target"), &cache, &PathBuf::from(script.parent().expect("a directory"))] {
        fs::create_dir_all(directory).expect("created");
        chown(directory, Some(USER), Some(USER)).expect("we are root");
    }
    fs::copy(xtask::root().join(command::AS_ROOT), &script).expect("copied");
    chown(&script, Some(USER), Some(USER)).expect("we are root");

    let mut user = Command::new("unshare");
    user.args(["--mount", "--propagation", "private", "--", "sh", "-c", BECOME, "sh"]);
    user.arg(&script).args(["sh", "-e", "-c", WRITE]);
    user.current_dir(&tree).env("ETC", dir.path().join("etc")).env("ID", USER.to_string());
    let path = std::env::var("PATH").expect("there is one");
    user.env("PATH", format!("/contributor/bin:{path}"));
    user.env("PARKWARDEN_CACHE", &cache).env_remove("CARGO_TARGET_DIR");
    let output = user.output().expect("unshare (util-linux) runs");
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    for written in [tree.join("target/fixtures/leaks"), cache.join("go/go"), tree.join("tests/golden/leaks.txt")] {
        assert!(written.is_file(), "{} was not written", written.display());
    }
    belongs_to_user(&tree);
    belongs_to_user(&cache);
    let linked = fs::metadata(dir.path().join("etc/hostname")).expect("the copy");
    assert_ne!(linked.uid(), USER, "a link was followed");
}
