//! Whether there is a cluster, and the way to it.

use std::path::Path;
use std::sync::Arc;

use kube::config::{InClusterError, KubeConfigOptions, KubeconfigError};
use kube::{Api, Client, Config};

use super::events::{Events, Pace};
use super::pods::{KnownPods, Pods};
use crate::config::settings::{KubernetesSettings, Switch};

/// Where a pod has the token of its service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The cluster, or that there is none.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Who processes belong to.
    pub pods: Pods,
    /// Events on pods.
    pub events: Events,
}

/// Why the cluster cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing that says where it is.
    #[error("no cluster is known: run in a pod with a service account, or set KUBECONFIG to a file")]
    NoCluster,
    /// All pods of the cluster are none of this agent's business.
    #[error(
        "the name of this node is not known: set kubernetes.node or NODE_NAME, so that only its pods are asked for"
    )]
    NoNode,
    /// The file that KUBECONFIG names is wrong.
    #[error("cannot use the file that KUBECONFIG names")]
    Kubeconfig(#[from] KubeconfigError),
    /// The service account is incomplete.
    #[error("cannot use the pod's service account")]
    ServiceAccount(#[from] InClusterError),
    /// Certificates or credentials are wrong.
    #[error("cannot use the cluster's credentials")]
    Credentials(#[from] Box<kube::Error>),
}

/// Begins to follow the pods of this node, on the runtime it is called in. Without a cluster, and none asked for, that is
/// no error; nor is an API that does not answer: it will be asked again.
pub async fn start(settings: &KubernetesSettings) -> Result<Cluster, StartError> {
    let enabled = settings.enabled.unwrap_or_default();
    match try_start(enabled, settings).await {
        Err(error) if enabled == Switch::Auto => {
            let error = crate::exit::chain(&error);
            log::warn!("kubernetes: {error}; processes are named by their control groups alone");
            Ok(Cluster::default())
        }
        done => done,
    }
}

async fn try_start(enabled: Switch, settings: &KubernetesSettings) -> Result<Cluster, StartError> {
    let kubeconfig = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    let account = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists();
    // The service account's token and certificates are read again when they change.
    let config = match way(enabled, kubeconfig, account)? {
        Way::None => return Ok(Cluster::default()),
        Way::Kubeconfig => Config::from_kubeconfig(&KubeConfigOptions::default()).await?,
        Way::ServiceAccount => Config::incluster()?,
    };
    let node = settings.node.clone().filter(|node| !node.is_empty()).ok_or(StartError::NoNode)?;
    connect(config, node, settings.events.unwrap_or(true), Pace::default())
}

/// How to reach the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    None,
    Kubeconfig,
    ServiceAccount,
}

/// As KUBECONFIG says, else as a pod of it.
fn way(enabled: Switch, kubeconfig: bool, account: bool) -> Result<Way, StartError> {
    match enabled {
        Switch::Off => Ok(Way::None),
        _ if kubeconfig => Ok(Way::Kubeconfig),
        _ if account => Ok(Way::ServiceAccount),
        Switch::Auto => Ok(Way::None),
        Switch::On => Err(StartError::NoCluster),
    }
}

/// The same, of a cluster that is known.
pub(super) fn connect(mut config: Config, node: String, events: bool, pace: Pace) -> Result<Cluster, StartError> {
    // It would retry out of sight, beneath the back-off here.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(Box::new)?;
    let known = Arc::new(KnownPods::default());
    tokio::spawn(super::follow::follow(Api::all(client.clone()), node.clone(), Arc::clone(&known), pace.retry));
    let events = if events { Events::start(client, node, pace) } else { Events::default() };
    Ok(Cluster { pods: Pods::new(known), events })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_decides_unless_told_otherwise() {
        for (enabled, kubeconfig, account, expected) in [
            (Switch::Auto, false, false, Some(Way::None)),
            (Switch::Auto, false, true, Some(Way::ServiceAccount)),
            (Switch::Auto, true, true, Some(Way::Kubeconfig)),
            (Switch::On, true, false, Some(Way::Kubeconfig)),
            (Switch::On, false, true, Some(Way::ServiceAccount)),
            (Switch::On, false, false, None),
            (Switch::Off, true, true, Some(Way::None)),
        ] {
            assert_eq!(way(enabled, kubeconfig, account).ok(), expected, "{enabled:?} {kubeconfig} {account}");
        }
    }
}
