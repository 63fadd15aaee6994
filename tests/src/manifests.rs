//! `deploy/` as its users get it: manifests rendered with kubectl or Helm, and what they say of the agent's container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use xtask::{command, packages};

/// The directory that is rendered without anything on top.
pub const BASE: &str = "base";

/// A path below `deploy/`.
pub fn deploy(path: &str) -> PathBuf {
    xtask::root().join("deploy").join(path)
}

/// Directories of `deploy/kubernetes` that can be rendered: the base and every overlay.
///
/// # Panics
///
/// When there are no overlays.
pub fn kustomizations() -> Vec<String> {
    let overlays = fs::read_dir(deploy("kubernetes/overlays")).expect("overlays");
    let overlays = overlays.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut all: Vec<_> = overlays.map(|name| format!("overlays/{name}")).chain([BASE.to_owned()]).collect();
    all.sort();
    assert!(all.len() > 1, "there are no overlays");
    all
}

/// Where the chart is.
pub const CHART: &str = "helm/parkwarden";

/// Has Helm render the chart with these values, or lint it; what it says.
///
/// # Panics
///
/// When it fails.
pub fn helm(what: &str, values: &Value) -> String {
    let mut helm = Command::new("python3");
    helm.env("PYTHONPATH", packages::helm().expect("installed"));
    helm.arg(xtask::root().join("tests/helm/helm.py")).arg(what).arg(deploy(CHART)).arg(values.to_string());
    command::output(&mut helm).expect("Helm takes the chart")
}

/// What `kubectl kustomize` made of such a directory, or Helm of the chart.
#[derive(Debug)]
pub struct Rendered {
    /// As it comes.
    pub text: String,
    /// The objects in it.
    pub objects: Vec<Value>,
}

impl Rendered {
    /// Renders one.
    ///
    /// # Panics
    ///
    /// When it does not render.
    pub fn of(kustomization: &str) -> Self {
        let kubectl = packages::kubernetes().expect("installed").join("bin/kubectl");
        let directory = deploy("kubernetes").join(kustomization);
        let text = command::output(Command::new(kubectl).arg("kustomize").arg(directory)).expect("it renders");
        Self::from_text(text)
    }

    /// Renders the chart.
    ///
    /// # Panics
    ///
    /// When it does not render.
    pub fn of_chart(values: &Value) -> Self {
        Self::from_text(helm("render", values))
    }

    fn from_text(text: String) -> Self {
        let objects = serde_saphyr::from_multiple(&text).expect("YAML");
        Self { text, objects }
    }

    /// The one object of a kind.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one.
    pub fn object(&self, kind: &str) -> &Value {
        let of_kind: Vec<_> = self.objects.iter().filter(|object| object["kind"] == kind).collect();
        let [object] = of_kind[..] else { panic!("{} of kind {kind}", of_kind.len()) };
        object
    }

    /// The agent's pod.
    ///
    /// # Panics
    ///
    /// When there is no DaemonSet.
    pub fn pod(&self) -> &Value {
        &self.object("DaemonSet")["spec"]["template"]["spec"]
    }

    /// The container in it.
    ///
    /// # Panics
    ///
    /// When there are others.
    pub fn agent(&self) -> &Value {
        let containers = self.pod()["containers"].as_array().expect("containers");
        let [agent] = &containers[..] else { panic!("{} containers", containers.len()) };
        agent
    }

    /// The capabilities that it is given, as Kubernetes writes them: without `CAP_`.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub fn capabilities(&self) -> Vec<String> {
        let added = &self.agent()["securityContext"]["capabilities"]["add"];
        let names = added.as_array().expect("a list").iter();
        names.map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// What the agent's configuration file says, in a file of its own at `path`.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn write_configuration(&self, path: &Path) {
        let text = self.objects.iter().find_map(|object| object["data"]["parkwarden.toml"].as_str());
        fs::write(path, text.expect("the configuration")).expect("written");
    }
}
