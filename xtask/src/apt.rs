//! Packages of Debian and Ubuntu that are only unpacked: of other releases and architectures than the machine's.
//!
//! apt is given a configuration and a state of its own below the target directory, so that the machine's stay as they are,
//! and nothing is ever installed. It checks signatures as always.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::{self, output, run, say};

/// A release of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian's, such as `bookworm`, with its security updates.
    Debian(&'static str),
    /// Debian's unstable.
    Sid,
    /// Ubuntu's updates, such as those of `jammy`.
    Ubuntu(&'static str),
}

impl Release {
    const fn name(self) -> &'static str {
        match self {
            Self::Debian(name) | Self::Ubuntu(name) => name,
            Self::Sid => "sid",
        }
    }

    /// Lines of a `sources.list`.
    fn sources(self) -> anyhow::Result<String> {
        Ok(match self {
            Self::Debian(name) => {
                let (main, security) = (debian_mirror("debian")?, debian_mirror("debian-security")?);
                format!("deb {DEBIAN_KEYS} {main} {name} main\ndeb {DEBIAN_KEYS} {security} {name}-security main\n")
            }
            // A mirror may be some weeks behind, which for unstable is past the time the release file is meant for.
            Self::Sid => {
                let keys = DEBIAN_KEYS.replace('[', "[check-valid-until=no ");
                format!("deb {keys} {} sid main\n", debian_mirror("debian")?)
            }
            Self::Ubuntu(name) => {
                let keyring = ubuntu_keyring()?;
                format!("deb [signed-by={}] {UBUNTU} {name}-updates main\n", keyring.display())
            }
        })
    }
}

const DEBIAN_KEYS: &str = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
const UBUNTU: &str = "http://archive.ubuntu.com/ubuntu";

/// Packages that apt can get.
#[derive(Debug)]
pub struct Archive {
    name: String,
    /// apt's configuration.
    config: PathBuf,
}

impl Archive {
    /// The packages of a release for an architecture, by lists that are fetched now unless an earlier run has.
    ///
    /// # Errors
    ///
    /// When this machine has no apt, knows no mirror of Debian's, or the lists cannot be had.
    pub fn of(release: Release, architecture: &str) -> anyhow::Result<Self> {
        Self::with(release.name(), architecture, |directory| {
            let file = directory.join("sources.list");
            fs::write(&file, release.sources()?)?;
            Ok(format!("Dir::Etc::sourcelist \"{}\"; Dir::Etc::sourceparts \"/dev/null\";\n", file.display()))
        })
    }

    /// The packages of this machine's own release, for another architecture.
    ///
    /// # Errors
    ///
    /// When this machine has no apt, or the lists cannot be had.
    pub fn of_this_machine(architecture: &str) -> anyhow::Result<Self> {
        Self::with("own", architecture, |_| Ok(String::new()))
    }

    fn with(
        release: &str,
        architecture: &str,
        sources: impl FnOnce(&Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        for program in ["apt-get", "dpkg"] {
            if command::find(program).is_none() {
                bail!("there is no {program} here, which gets packages of Debian and Ubuntu");
            }
        }
        let name = format!("{release}-{architecture}");
        let directory = home().join(&name);
        let config = directory.join("apt.conf");
        if !config.is_file() {
            for empty in ["state/lists/partial", "cache/archives/partial", "parts"] {
                fs::create_dir_all(directory.join(empty))?;
            }
            // No package is installed, as far as this apt knows.
            fs::write(directory.join("status"), "")?;
            let at = directory.display();
            let text = format!(
                "{}Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
                 APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
                 APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nAPT::Install-Recommends \"false\";\n",
                sources(&directory)?
            );
            let partial = directory.join("apt.conf.partial");
            fs::write(&partial, text)?;
            let archive = Self { name: name.clone(), config: partial.clone() };
            say(format_args!("fetching the lists of {name}"));
            // Some of the machine's own sources may have nothing for another architecture; what is missing shows later.
            run(archive.apt("apt-get").args(["update", "--quiet=2"]))?;
            fs::rename(&partial, &config)?;
        }
        Ok(Self { name, config })
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Before any file of the machine's, whose lists are to be replaced rather than added to.
        command.env("APT_CONFIG", &self.config);
        command
    }

    /// The newest of the packages whose names begin and end so; the versions of kernels are in their names.
    ///
    /// # Errors
    ///
    /// Names the pattern when there is none.
    pub fn newest(&self, prefix: &str, suffix: &str) -> anyhow::Result<String> {
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        let versions = names.lines().filter(|name| {
            let version = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
            // What has more than a version in between is another flavour, such as rt or unsigned.
            version.is_some_and(|version| {
                version.starts_with(|c: char| c.is_ascii_digit())
                    && !version.contains("-rt")
                    && !version.contains("-cloud")
            })
        });
        let newest = versions.max_by(|left, right| by_version(left, right));
        newest.map(str::to_owned).with_context(|| format!("{} has no package {prefix}*{suffix}", self.name))
    }

    /// Unpacks a package, `name` or `name=version`, below a directory.
    ///
    /// # Errors
    ///
    /// Names the package when it cannot be had.
    pub fn unpack(&self, package: &str, directory: &Path) -> anyhow::Result<()> {
        self.fetch(package, |file| {
            fs::create_dir_all(directory)?;
            run(Command::new("dpkg").arg("-x").arg(file).arg(directory))
        })
    }

    /// Takes those files out of a package whose paths match a pattern of tar's, such as `*/vmlinuz*`, and puts them side by
    /// side into a directory.
    ///
    /// # Errors
    ///
    /// Names the package when it cannot be had or has none.
    pub fn take(&self, package: &str, pattern: &str, directory: &Path) -> anyhow::Result<()> {
        self.fetch(package, |file| {
            fs::create_dir_all(directory)?;
            let archive = file.with_extension("tar");
            let tar = fs::File::create(&archive)?;
            let unpacked = Command::new("dpkg").arg("--fsys-tarfile").arg(file).stdout(tar).status()?;
            if !unpacked.success() {
                bail!("dpkg cannot read {}", file.display());
            }
            let mut tar = Command::new("tar");
            tar.arg("-xf").arg(&archive).arg("-C").arg(directory);
            run(tar.args(["--transform", "s,.*/,,", "--wildcards", pattern]))
        })
    }

    fn fetch(&self, package: &str, then: impl Fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        say(format_args!("unpacking {package} of {}", self.name));
        let place = tempfile::tempdir().context("a place for the download")?;
        let mut download = self.apt("apt-get");
        let here = download.current_dir(place.path());
        run(here.args(["download", "--quiet=2", package]))
            .with_context(|| format!("{} has no package {package} any more: remove {}", self.name, home().display()))?;
        for entry in fs::read_dir(place.path())? {
            then(&entry?.path()).with_context(|| format!("unpacking {package}"))?;
        }
        Ok(())
    }

    /// Unpacks packages below a directory with all that they depend on, the C library included.
    ///
    /// # Errors
    ///
    /// Names the packages when one cannot be had.
    pub fn unpack_whole(&self, packages: &[&str], directory: &Path) -> anyhow::Result<()> {
        let named = packages.join(" ");
        say(format_args!("unpacking {named} of {} with all they need", self.name));
        let mut install = self.apt("apt-get");
        install.args(["install", "--download-only", "--yes", "--quiet=2"]).args(packages);
        run(&mut install).with_context(|| format!("getting {named}"))?;
        fs::create_dir_all(directory)?;
        let files = self.config.with_file_name("cache/archives");
        for entry in fs::read_dir(&files)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg").arg("-x").arg(&file).arg(directory))?;
                fs::remove_file(&file)?;
            }
        }
        Ok(())
    }
}

fn home() -> PathBuf {
    crate::target_dir().join("apt")
}

/// Where this machine gets Debian's packages from: the address in its own sources that ends so.
fn debian_mirror(name: &str) -> anyhow::Result<String> {
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let texts = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(parts).map(fs::read_to_string);
    let found = texts.flatten().find_map(|text| address(&text, name));
    found.with_context(|| format!("apt's sources name no mirror of {name}: other kernels come from there"))
}

fn address(sources: &str, name: &str) -> Option<String> {
    let words = sources.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let mut addresses = words.filter(|word| word.contains("://"));
    addresses.find(|word| word.trim_end_matches('/').ends_with(&format!("/{name}"))).map(str::to_owned)
}

/// Ubuntu's keys, which Debian has a package of.
fn ubuntu_keyring() -> anyhow::Result<PathBuf> {
    let directory = home().join("ubuntu-keyring");
    let keyring = directory.join("usr/share/keyrings/ubuntu-archive-keyring.gpg");
    if !keyring.is_file() {
        Archive::of(Release::Debian("trixie"), "amd64")?.unpack("ubuntu-keyring", &directory)?;
    }
    Ok(keyring)
}

/// By the numbers in them, and by what is between.
fn by_version(left: &str, right: &str) -> Ordering {
    let parts = |name: &str| -> Vec<(String, u64)> {
        let mut rest = name;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (text, from) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
            let (number, after) = from.split_at(from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len()));
            parts.push((text.to_owned(), number.parse().unwrap_or(0)));
            rest = after;
        }
        parts
    };
    parts(left).cmp(&parts(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_has_the_highest_numbers() {
        let mut names =
            ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-10-amd64", "linux-image-6.1.0-0.deb11.48-amd64"];
        names.sort_by(|left, right| by_version(left, right));
        assert_eq!(names[1..], ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-10-amd64"]);
    }

    #[test]
    fn a_mirror_is_found_in_either_form_of_sources() {
        let deb822 =
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: stable\n\nURIs: http://mirror.test/debian-security\n";
        assert_eq!(address(deb822, "debian").as_deref(), Some("http://mirror.test/debian"));
        assert_eq!(address(deb822, "debian-security").as_deref(), Some("http://mirror.test/debian-security"));
        let lines =
            "# deb http://old.test/debian stable main\ndeb [arch=amd64] http://mirror.test/debian/ stable main\n";
        assert_eq!(address(lines, "debian").as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(address(lines, "debian-security"), None);
    }
}
