//! A container that is kept up for its files alone, while its program does not run.

use crate::config::Config;
use crate::host_config::{HostConfig, RestartPolicy};
use crate::spec::SandboxSpec;

impl SandboxSpec {
    /// The same container without everything that has to do with running: no network, no devices, no health checks, in no
    /// other container's namespaces. Its root, its mounts and its size stay. Nothing of this is stored.
    #[must_use]
    pub fn kept(mut self) -> Self {
        let config = std::mem::take(&mut self.config);
        self.config = Config {
            user: String::new(),
            working_dir: String::from("/"),
            tty: false,
            open_stdin: false,
            healthcheck: None,
            exposed_ports: Default::default(),
            ..config
        };
        let host = std::mem::take(&mut self.host_config);
        self.host_config = HostConfig {
            network_mode: String::from("none"),
            port_bindings: Default::default(),
            publish_all_ports: false,
            restart_policy: RestartPolicy::default(),
            auto_remove: false,
            pid_mode: String::new(),
            ipc_mode: String::from("private"),
            uts_mode: String::new(),
            devices: Vec::new(),
            device_requests: Vec::new(),
            sysctls: Default::default(),
            group_add: Vec::new(),
            ulimits: Vec::new(),
            oom_score_adj: 0,
            ..host
        };
        self.only_kept = true;
        self
    }
}
