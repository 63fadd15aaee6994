//! The packages: the same bytes each time, the same files in each, and a `.deb` that is installed on a clean Debian, runs there,
//! and goes.
//!
//! `cargo xtask test --packages` runs it. The program in them is not optimized, which would take minutes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use parkwarden_tests::manifests::deploy;
use serde_json::Value;
use xtask::command::{self, apt_install_programs, as_root, output, run, say};
use xtask::dist::{self, Target};
use xtask::release::{self, VERSION};

const OURS: Target = if cfg!(target_arch = "x86_64") { Target::X86_64 } else { Target::Aarch64 };

fn main() -> anyhow::Result<()> {
    apt_install_programs(&[("mmdebstrap", "mmdebstrap"), ("rpm", "rpm"), ("zstd", "zstd")])?;
    let program = dist::build_quickly(OURS)?;
    ensure!(is_static(&program)?, "{} is not static", program.display());
    let place = tempfile::tempdir()?;
    let (first, again) = (place.path().join("first"), place.path().join("again"));
    release::pack(OURS, &program, &first)?;
    release::pack(OURS, &program, &again)?;
    same_bytes(&first, &again)?;
    say("packed twice, with the same bytes");

    let packages = Packages { directory: first };
    packages.have_the_same_files()?;
    packages.deb_is_installed_and_goes(&place.path().join("root"))?;
    say("3 passed, 0 failed");
    Ok(())
}

fn is_static(program: &Path) -> anyhow::Result<bool> {
    Ok(!output(Command::new("readelf").args(["--program-headers"]).arg(program))?.contains("INTERP"))
}

fn same_bytes(first: &Path, again: &Path) -> anyhow::Result<()> {
    let mut packages = 0;
    for entry in fs::read_dir(first)? {
        let path = entry?.path();
        let other = again.join(path.file_name().context("a name")?);
        ensure!(fs::read(&path)? == fs::read(other)?, "{} is not the same again", path.display());
        say(format_args!("{} has {} bytes", path.display(), fs::metadata(&path)?.len()));
        packages += 1;
    }
    ensure!(packages == 3, "{packages} packages: an archive, a .deb and an .rpm were to be made");
    Ok(())
}

struct Packages {
    directory: PathBuf,
}

impl Packages {
    fn deb(&self) -> PathBuf {
        self.directory.join(format!("parkwarden_{VERSION}-1_{}.deb", OURS.architecture()))
    }

    fn rpm(&self) -> PathBuf {
        self.directory.join(format!("parkwarden-{VERSION}-1.{}.rpm", OURS.machine()))
    }

    fn have_the_same_files(&self) -> anyhow::Result<()> {
        let rpm = |question: &[&str]| {
            output(Command::new("rpm").args(["-qp", "--nosignature"]).args(question).arg(self.rpm()))
        };
        let in_rpm: BTreeSet<String> = rpm(&["--list"])?.lines().map(str::to_owned).collect();
        let tar = |package: &Path| output(Command::new("dpkg-deb").arg("--contents").arg(package));
        let files = tar(&self.deb())?;
        let files = files.lines().filter(|line| line.starts_with('-'));
        let mut in_deb = BTreeSet::new();
        for line in files {
            ensure!(line.contains(" root/root ") || line.contains(" 0/0 "), "not root's: {line}");
            let file =
                line.split_whitespace().last().unwrap_or_default().trim_start_matches("./").trim_start_matches('/');
            // cargo-deb compresses manuals, as Debian wants it.
            let file = if file.contains("/man/") { file.trim_end_matches(".gz") } else { file };
            in_deb.insert(format!("/{file}"));
        }
        // cargo-deb puts the copyright there by itself.
        in_deb.remove("/usr/share/doc/parkwarden/copyright");
        ensure!(in_rpm == in_deb, "in the .rpm: {in_rpm:#?}, in the .deb: {in_deb:#?}");
        let archive = self.directory.join(format!("parkwarden-{VERSION}-{}.tar.zst", OURS.triple()));
        let names = output(Command::new("tar").args(["--zstd", "--list", "--file"]).arg(archive))?;
        for file in in_deb.iter().filter_map(|file| file.strip_prefix("/usr/")) {
            let inside = format!("parkwarden-{VERSION}-{}/{file}", OURS.triple());
            ensure!(names.lines().any(|name| name == inside), "{inside} is not in the archive: {names}");
        }
        ensure!(rpm(&["--configfiles"])?.trim() == "/etc/parkwarden/parkwarden.toml");
        let required = rpm(&["--requires"])?;
        // That it has a configuration file it provides itself.
        let own = |line: &str| ["rpmlib(", "config(parkwarden)"].iter().any(|known| line.starts_with(known));
        let foreign = required.lines().find(|line| !own(line) && !line.contains("/bin/sh"));
        ensure!(foreign.is_none(), "the .rpm requires {foreign:?}");
        say(format_args!("archive, .deb and .rpm have the same {} files", in_deb.len()));
        Ok(())
    }

    fn deb_is_installed_and_goes(&self, root: &Path) -> anyhow::Result<()> {
        // The release alone: the lists of its updates expire, and on a mirror that stands still they have.
        let mut mmdebstrap = as_root("mmdebstrap");
        mmdebstrap.args(["--quiet", "--variant=essential", "stable"]).arg(root);
        run(mmdebstrap.arg("deb http://deb.debian.org/debian stable main"))?;
        fs::copy(self.deb(), root.join("parkwarden.deb"))?;
        inside(root, "dpkg --install /parkwarden.deb")?;
        let version = inside(root, "parkwarden --version")?;
        ensure!(version.starts_with(&format!("parkwarden {VERSION}")), "{version}");
        let checks = inside(root, "parkwarden doctor --format json || test $? -le 5")?;
        let checks: Value = serde_json::from_str(&checks).with_context(|| format!("doctor says {checks}"))?;
        ensure!(checks.is_object() || checks.is_array());
        // What the unit says is what the program understands.
        let unit = fs::read_to_string(root.join("usr/lib/systemd/system/parkwarden.service"))?;
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("ExecStart=")?;
        let config = inside(root, &format!("{start} --print-config"))?;
        ensure!(config.contains("127.0.0.1:9465"), "{config}");
        ensure!(fs::read(root.join("etc/parkwarden/parkwarden.toml"))? == fs::read(deploy("systemd/parkwarden.toml"))?);

        inside(
            root,
            "echo '# mine' >> /etc/parkwarden/parkwarden.toml; mkdir -p /var/lib/parkwarden; dpkg --install /parkwarden.deb",
        )?;
        let kept = fs::read_to_string(root.join("etc/parkwarden/parkwarden.toml"))?;
        ensure!(kept.ends_with("# mine\n"), "what the administrator wrote is gone: {kept}");
        inside(root, "dpkg --remove parkwarden")?;
        let is_there = |path: &str| root.join(path).exists();
        ensure!(!is_there("usr/bin/parkwarden") && is_there("etc/parkwarden/parkwarden.toml"));
        inside(root, "dpkg --purge parkwarden")?;
        ensure!(!is_there("etc/parkwarden") && !is_there("var/lib/parkwarden"), "purged, and something is left");
        say("the .deb was installed on a clean Debian, run, installed again, removed and purged");
        run(as_root("rm").args(["-r", "--one-file-system"]).arg(root))
    }
}

/// What a shell says in `root`, with /proc and in a mount namespace that ends with it.
fn inside(root: &Path, words: &str) -> anyhow::Result<String> {
    let mut unshare = as_root("unshare");
    unshare.args(["--mount", "--propagation=private", "sh", "-ec"]);
    unshare.arg(r#"mount -t proc proc "$1/proc"; exec chroot "$1" /bin/sh -ec "$2""#).arg("sh").arg(root).arg(words);
    output(&mut unshare).with_context(|| command::describe(&unshare))
}
