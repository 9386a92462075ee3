//! What a node with CRI-O has of its own.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use larder_test_parts::CrioLine;

use super::{Builder, put, put_program};
use crate::registry::SYSTEM_REGISTRY;

impl Builder<'_> {
    /// CRI-O's programs and files. What it starts containers and watches them with is in the layer below, as Debian has it.
    pub(super) fn put_crio(&self, root: &Path, line: CrioLine) -> Result<()> {
        let crio = self.machine.parts.crio(line)?;
        for (program, name) in [(&crio.crio, "crio"), (&crio.pinns, "pinns")] {
            put_program(program, &root.join("usr/local/bin").join(name))?;
        }
        let runc = if self.machine.runtime.is_some() { "/usr/local/sbin/runc" } else { "/usr/sbin/runc" };
        put(root, "etc/crio/crio.conf.d/10-kind.conf", &configuration(runc, self.pause))?;
        put(root, "etc/containers/policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n")?;
        // The control plane's images are in a registry of ours; nothing here reaches the one that their names say.
        let registries = format!(
            "[[registry]]\nlocation = \"registry.k8s.io\"\n\n\
             [[registry.mirror]]\nlocation = \"{SYSTEM_REGISTRY}:5000\"\ninsecure = true\n"
        );
        put(root, "etc/containers/registries.conf", &registries)?;
        // As distributions have it; nothing is in it.
        fs::create_dir_all(root.join("etc/containers/registries.conf.d"))?;
        put(root, "etc/systemd/system/crio.service", UNIT)?;
        // kind's own kubelet speaks of containerd.
        let path = self.machine.parts.source("kind")?.join("images/base/files/etc/default/kubelet");
        let theirs = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        put(root, "etc/default/kubelet", &theirs.replace("containerd.service", "crio.service"))
    }
}

/// CRI-O's own unit, without what only the machine's first systemd may do.
const UNIT: &str = "[Unit]
After=network.target local-fs.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/local/bin/crio
ExecReload=/bin/kill -s HUP $MAINPID
Restart=always
RestartSec=1
Delegate=yes
KillMode=process
TasksMax=infinity

[Install]
WantedBy=multi-user.target
";

fn configuration(runc: &str, pause: &str) -> String {
    format!(
        "[crio]
storage_driver = \"overlay\"

[crio.runtime]
default_runtime = \"runc\"
cgroup_manager = \"systemd\"
conmon_cgroup = \"system.slice\"
pinns_path = \"/usr/local/bin/pinns\"

[crio.runtime.runtimes.runc]
runtime_path = \"{runc}\"
monitor_path = \"/usr/bin/conmon\"

[crio.image]
pause_image = \"{pause}\"

[crio.network]
network_dir = \"/etc/cni/net.d\"
plugin_dirs = [\"/opt/cni/bin\"]
"
    )
}
