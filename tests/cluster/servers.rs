//! The servers of the cluster, as processes with their settings.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use xtask::cluster::Parts;

use crate::keys::{Authority, keys};
use crate::machine::{API_ADDRESS, BRIDGE, Machine, NODE_ADDRESS, POD_NETWORK, SERVICE_NETWORK};

/// The node's name.
pub const NODE: &str = "node-1";

/// The directory from which the kubelet runs pods by itself.
pub const STATIC_PODS: &str = "static-pods";

/// Where the API server is for those on the node.
pub const API_URL: &str = "https://10.98.0.1";

/// Who talks with the API server: name of a file with the way to it, user, group.
const USERS: [(&str, &str, &str); 4] = [
    ("admin", "admin", "system:masters"),
    ("controllers", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kubelet", "system:node:node-1", "system:nodes"),
];

/// A server of the cluster; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts one that says what it does to a file.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[String]) -> Self {
        let log = log_of(program);
        let file = File::options().create(true).append(true).open(&log).expect("a file");
        // However this process ends, its servers do too. Ctrl-C is for this process, which ends them in order.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments).process_group(0);
        // Kubelets look for their cloud, and give up after seconds.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        Self { child, log }
    }

    /// Fails when it has ended by itself.
    ///
    /// # Panics
    ///
    /// Then.
    pub fn check(&mut self) {
        let ended = self.child.try_wait().expect("it can be waited for");
        assert!(ended.is_none(), "{} says why a server ended", self.log.display());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the servers' words are kept after the end.
pub fn logs() -> PathBuf {
    xtask::target_dir().join("cluster/logs")
}

fn log_of(program: &Path) -> PathBuf {
    fs::create_dir_all(logs()).expect("a directory");
    logs().join(program.file_name().expect("a program")).with_extension("log")
}

/// What the servers share: keys, tokens, files.
#[derive(Debug)]
pub struct Settings {
    /// Who signs the certificates of all servers.
    pub authority: Authority,
    /// The file with the administrator's way to the API server.
    pub admin: PathBuf,
    /// The file with the authority's certificate.
    pub certificate: PathBuf,
}

impl Settings {
    /// Writes what the servers read.
    pub fn write(machine: &Machine) -> Self {
        let authority = Authority::new("cluster");
        let certificate = machine.file("ca.crt", &authority.certificate());
        let api = authority.sign(&["kubernetes", "kubernetes.default.svc", NODE_ADDRESS, API_ADDRESS]);
        machine.file("api.crt", &api.certificate);
        machine.file("api.key", &api.key);
        let (public, private) = keys();
        machine.file("accounts.pub", &public);
        machine.file("accounts.key", &private);

        let mut tokens = String::new();
        for (file, user, group) in USERS {
            let token = format!("token-of-{file}");
            tokens.push_str(&format!("{token},{user},{user},{group}\n"));
            let way = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
                "clusters": [{"name": "cluster", "cluster": {"server": API_URL, "certificate-authority": certificate}}],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
            });
            machine.file(&format!("{file}.kubeconfig"), &way.to_string());
        }
        machine.file("tokens.csv", &tokens);
        Self { authority, admin: machine.path("admin.kubeconfig"), certificate }
    }
}

/// Flags as a server takes them; values are put in for `{dir}`, which is the machine's directory.
fn flags(machine: &Machine, flags: &[&str]) -> Vec<String> {
    let dir = machine.path("").display().to_string();
    flags.iter().map(|flag| format!("--{}", flag.replace("{dir}/", &dir))).collect()
}

/// Starts the store of everything.
pub fn etcd(machine: &Machine, parts: &Parts) -> Server {
    let arguments = [
        "data-dir={dir}/etcd",
        "listen-client-urls=http://127.0.0.1:2379",
        "advertise-client-urls=http://127.0.0.1:2379",
        "listen-peer-urls=http://127.0.0.1:2380",
    ];
    Server::start(&parts.etcd, &flags(machine, &arguments))
}

/// Starts the API server. It allows no privileged containers, because the agent's is none.
pub fn api(machine: &Machine, parts: &Parts) -> Server {
    let advertised = format!("advertise-address={NODE_ADDRESS}");
    let services = format!("service-cluster-ip-range={SERVICE_NETWORK}");
    let arguments = [
        "etcd-servers=http://127.0.0.1:2379",
        "bind-address=0.0.0.0",
        "secure-port=443",
        &advertised,
        &services,
        "cert-dir={dir}/api",
        "tls-cert-file={dir}/api.crt",
        "tls-private-key-file={dir}/api.key",
        "token-auth-file={dir}/tokens.csv",
        "authorization-mode=Node,RBAC",
        "enable-admission-plugins=NodeRestriction",
        "service-account-issuer=https://kubernetes.default.svc",
        "service-account-key-file={dir}/accounts.pub",
        "service-account-signing-key-file={dir}/accounts.key",
        "allow-privileged=false",
        "kubelet-preferred-address-types=InternalIP",
    ];
    Server::start(&parts.servers.join("kube-apiserver"), &flags(machine, &arguments))
}

/// Starts what makes pods of workloads, and tokens of service accounts.
pub fn controllers(machine: &Machine, parts: &Parts) -> Server {
    let arguments = [
        "kubeconfig={dir}/controllers.kubeconfig",
        "bind-address=127.0.0.1",
        "port=0",
        "cert-dir={dir}/controllers",
        "leader-elect=false",
        "root-ca-file={dir}/ca.crt",
        "service-account-private-key-file={dir}/accounts.key",
        "use-service-account-credentials",
    ];
    Server::start(&parts.servers.join("kube-controller-manager"), &flags(machine, &arguments))
}

/// Starts what chooses the one node there is.
pub fn scheduler(machine: &Machine, parts: &Parts) -> Server {
    let arguments = [
        "kubeconfig={dir}/scheduler.kubeconfig",
        "bind-address=127.0.0.1",
        "port=0",
        "cert-dir={dir}/scheduler",
        "leader-elect=false",
    ];
    Server::start(&parts.servers.join("kube-scheduler"), &flags(machine, &arguments))
}

/// What containerd is to be for a kubelet.
pub fn runtime(machine: &Machine, parts: &Parts, sandbox_image: &str, snapshotter: &str) -> String {
    let networks = machine.directory("networks");
    let network = json!({
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": BRIDGE, "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": machine.directory("addresses"),
                "ranges": [[{"subnet": POD_NETWORK, "gateway": NODE_ADDRESS}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    machine.file("networks/pods.conflist", &network.to_string());
    format!(
        "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {sandbox_image:?}\ndisable_apparmor = true\n\
         restrict_oom_score_adj = true\ntolerate_missing_hugetlb_controller = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = {snapshotter:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {:?}\nconf_dir = {networks:?}\n",
        parts.cni
    )
}

/// Starts the kubelet, whose control groups are below `group`.
pub fn kubelet(machine: &Machine, parts: &Parts, containerd: &Path, group: &str) -> Server {
    let settings = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS, "healthzPort": 0, "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": group, "enforceNodeAllocatable": [],
        "staticPodPath": machine.directory(STATIC_PODS),
        "failSwapOn": false, "makeIPTablesUtilChains": false, "resolvConf": "",
        // However full the machine's disk is.
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
    });
    machine.file("kubelet.json", &settings.to_string());
    let endpoint = format!("container-runtime-endpoint=unix://{}", containerd.display());
    let (name, address) = (format!("hostname-override={NODE}"), format!("node-ip={NODE_ADDRESS}"));
    let arguments = [
        "config={dir}/kubelet.json",
        "kubeconfig={dir}/kubelet.kubeconfig",
        "root-dir={dir}/kubelet",
        "cert-dir={dir}/kubelet-certificates",
        "volume-plugin-dir={dir}/kubelet-plugins",
        "container-runtime=remote",
        &endpoint,
        &name,
        &address,
    ];
    Server::start(&parts.servers.join("kubelet"), &flags(machine, &arguments))
}
