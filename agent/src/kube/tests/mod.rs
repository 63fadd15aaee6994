//! The cluster's side of the agent against a server that answers as API servers do, and as they should not.

mod documents;
mod events;
mod pods;
mod server;

use std::time::Duration;

use kube::Config;

use super::connect::{Cluster, connect};
use super::events::Pace;
use server::Server;

/// As patient as a test.
fn pace() -> Pace {
    Pace { burst: 1000, every: Duration::from_millis(1), retry: Duration::from_millis(5), retries: 3 }
}

fn cluster(server: &Server) -> Cluster {
    cluster_at(server, pace())
}

fn cluster_at(server: &Server, pace: Pace) -> Cluster {
    let config = Config::new(format!("http://{}", server.address).parse().expect("a URL"));
    connect(config, "node-1".to_owned(), true, pace).expect("a client")
}

/// Waits until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
        panic!("not within 20 s: {what}");
    }
}
