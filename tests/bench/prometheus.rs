//! Prometheus as Debian builds it, for sections that want a server of somebody else's.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use parkwarden_tests::free_ports;
use parkwarden_tests::target::DEADLINE;
use parkwarden_tests::wait::until;
use tempfile::TempDir;
use xtask::command;

/// One that scrapes nothing but itself; ends when dropped.
pub struct Prometheus {
    server: Child,
    port: u16,
    _dir: TempDir,
}

impl Prometheus {
    /// One that answers; `GOMAXPROCS` of it, if not all CPUs.
    pub fn start(cpus: Option<u32>) -> anyhow::Result<Self> {
        if command::find("prometheus").is_none() {
            command::apt_install(&["prometheus"])?;
        }
        let dir = tempfile::tempdir()?;
        let [port] = free_ports();
        let config = dir.path().join("prometheus.yml");
        let scrape =
            format!("scrape_configs: [{{job_name: itself, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]");
        std::fs::write(&config, format!("global: {{scrape_interval: 15s}}\n{scrape}\n"))?;
        let server = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .envs(cpus.map(|cpus| ("GOMAXPROCS", cpus.to_string())))
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { server, port, _dir: dir };
        until("Prometheus", DEADLINE, || TcpStream::connect(("127.0.0.1", port)).ok());
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Where it answers.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
