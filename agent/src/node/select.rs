//! Which processes are watched, and how: the configuration, and what a pod says of itself. Pure.

use std::time::Duration;

use crate::config::settings::SelectSettings;
use crate::config::{ModeChoice, WatchConfig};
use crate::discover::workload::Workload;

/// `"false"` on a pod leaves its processes alone.
pub const WATCH: &str = "parkwarden.io/watch";

/// On a pod: what counts as parked long.
pub const THRESHOLD: &str = "parkwarden.io/threshold";

/// On a pod: how its processes are watched.
pub const MODE: &str = "parkwarden.io/mode";

/// What is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Path of the executable.
    pub exe: &'a str,
    /// Number of the user.
    pub uid: Option<u32>,
    /// Name of the user.
    pub user: &'a str,
    /// Where it belongs.
    pub workload: &'a Workload,
}

/// Why a process is not to be watched; `None` if it is.
pub fn unselected(select: &SelectSettings, candidate: &Candidate<'_>) -> Option<String> {
    let Candidate { exe, uid, user, workload } = candidate;
    if workload.annotations.get(WATCH).is_some_and(|value| value.trim() == "false") {
        return Some(format!("its pod has the annotation {WATCH}: \"false\""));
    }
    let namespace = workload.namespace.as_deref();
    if let Some(namespace) = namespace
        && select.exclude_namespaces.iter().flatten().any(|pattern| pattern.matches(namespace))
    {
        return Some(format!("select.exclude_namespaces matches {namespace}"));
    }
    let named = |setting: &str, what: &str, value: Option<&str>| match value {
        Some(value) => format!("{setting} does not match {value}"),
        None => format!("{setting} is set, and it has no {what}"),
    };
    let missed = |patterns: &Option<Vec<crate::config::settings::Pattern>>, value: Option<&str>| {
        let given = patterns.as_deref().filter(|patterns| !patterns.is_empty());
        given.is_some_and(|patterns| !value.is_some_and(|value| patterns.iter().any(|pattern| pattern.matches(value))))
    };
    if missed(&select.namespaces, namespace) {
        return Some(named("select.namespaces", "namespace", namespace));
    }
    let container = workload.container.as_deref().or(workload.container_id.as_deref());
    if missed(&select.containers, container) {
        return Some(named("select.containers", "container", container));
    }
    if missed(&select.executables, Some(exe)) {
        return Some(named("select.executables", "executable", Some(exe)));
    }
    let lacking =
        select.pod_labels.iter().flatten().find(|label| workload.labels.get(&label.key) != Some(&label.value));
    if let Some(label) = lacking {
        return Some(format!("select.pod_labels: its pod has no label {label}"));
    }
    let users = select.users.as_deref().unwrap_or_default();
    let is_user = |wanted: &String| wanted == user || uid.is_some_and(|uid| *wanted == uid.to_string());
    if !users.is_empty() && !users.iter().any(is_user) {
        return Some(named("select.users", "user", Some(user)));
    }
    None
}

/// How a process is watched, and what is wrong with its pod's wishes.
pub fn watch_config(base: &WatchConfig, workload: &Workload) -> (WatchConfig, Vec<String>) {
    let mut config = base.clone();
    let mut wrong = Vec::new();
    if let Some(text) = workload.annotations.get(WATCH)
        && !matches!(text.trim(), "true" | "false")
    {
        wrong.push(format!("{WATCH}: {text:?} is neither true nor false"));
    }
    if let Some(text) = workload.annotations.get(THRESHOLD) {
        match humantime::parse_duration(text.trim()) {
            Ok(threshold) if threshold >= Duration::from_millis(1) => config.threshold = threshold,
            _ => wrong.push(format!("{THRESHOLD}: {text:?} is not a time such as 2m")),
        }
    }
    if let Some(text) = workload.annotations.get(MODE) {
        match <ModeChoice as clap::ValueEnum>::from_str(text.trim(), false) {
            Ok(mode) => config.mode = mode,
            Err(_) => wrong.push(format!("{MODE}: {text:?} is none of auto, trace, filter, births and census")),
        }
    }
    (config, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            namespace: Some("shop".to_owned()),
            container: Some("cart".to_owned()),
            labels: [("app".to_owned(), "cart".to_owned())].into(),
            ..Workload::default()
        }
    }

    fn judge(toml: &str, workload: &Workload) -> Option<String> {
        let select: SelectSettings = toml::from_str(toml).expect("settings");
        unselected(&select, &Candidate { exe: "/srv/cart", uid: Some(7), user: "shop", workload })
    }

    #[test]
    fn every_given_list_has_to_match() {
        let (pod, host) = (workload(), Workload::default());
        assert_eq!(judge("", &host), None);
        for chosen in [
            "namespaces = [\"sh*\"]",
            "namespaces = []",
            "exclude_namespaces = [\"kube-*\"]",
            "pod_labels = [\"app=cart\"]",
            "containers = [\"c?rt\"]",
            "executables = [\"/srv/*\"]",
            "users = [\"7\"]",
            "users = [\"shop\"]",
        ] {
            assert_eq!(judge(chosen, &pod), None, "{chosen}");
        }
        for not in [
            "namespaces = [\"pay\"]",
            "exclude_namespaces = [\"shop\"]",
            "pod_labels = [\"app=cart\", \"tier=1\"]",
            "containers = [\"car\"]",
            "executables = [\"/usr/*\"]",
            "users = [\"root\"]",
        ] {
            assert!(judge(not, &pod).is_some(), "{not}");
        }
        assert!(judge("namespaces = [\"*\"]", &host).is_some(), "a host process is in no namespace");
    }

    #[test]
    fn pods_have_their_say() {
        let mut pod = workload();
        pod.annotations.insert(WATCH.to_owned(), "false".to_owned());
        assert!(judge("", &pod).is_some());
        pod.annotations.insert(THRESHOLD.to_owned(), "2m".to_owned());
        pod.annotations.insert(MODE.to_owned(), "census".to_owned());
        let (config, wrong) = watch_config(&WatchConfig::default(), &pod);
        assert_eq!((config.threshold, config.mode), (Duration::from_secs(120), ModeChoice::Census));
        assert!(wrong.is_empty());
        pod.annotations.insert(THRESHOLD.to_owned(), "-1".to_owned());
        pod.annotations.insert(MODE.to_owned(), "fast".to_owned());
        let (config, wrong) = watch_config(&WatchConfig::default(), &pod);
        assert_eq!(config, WatchConfig::default());
        assert_eq!(wrong.len(), 2);
        pod.annotations.insert(WATCH.to_owned(), "no".to_owned());
        assert_eq!(watch_config(&WatchConfig::default(), &pod).1.len(), 3);
    }
}
