//! A namespace for one test, with the words that tests are written in.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::{Mutex, MutexGuard};

use crate::bed::{Bed, NAMESPACE, NODES};

/// How long anything may take that a cluster does by itself.
const LIMIT: Duration = Duration::from_mins(2);

/// Held by who needs a disk for itself, or takes from all what they need.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct Space<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) name: String,
}

/// How a pod uses a claim.
pub(crate) enum Use {
    Mount,
    ReadOnly,
    SubPath(&'static str),
    Device,
}

impl<'a> Space<'a> {
    pub(crate) fn new(bed: &'a Bed, name: &str) -> Result<Self> {
        let name = name.replace('_', "-");
        bed.kubectl(&["create", "namespace", &name])?;
        Ok(Self { bed, name })
    }

    /// Deletes all that is in it; nothing may be left of it anywhere.
    pub(crate) fn end(self) -> Result<()> {
        let timeout = format!("--timeout={}s", LIMIT.as_secs());
        self.bed
            .kubectl(&["delete", "namespace", &self.name, "--wait", &timeout])?;
        let of_us = format!(
            "{{range .items[?(@.spec.claimRef.namespace==\"{}\")]}}{{.metadata.name}} {{end}}",
            self.name
        );
        self.until("its persistent volumes are gone", || {
            let left = self
                .bed
                .kubectl(&["get", "pv", &format!("--output=jsonpath={of_us}")])?;
            Ok(left.trim().is_empty())
        })
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.bed
            .kubectl(&[&["--namespace", self.name.as_str()], args].concat())
    }

    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        self.bed.apply(&self.name, yaml)
    }

    /// A claim: `more` is what else its specification says.
    pub(crate) fn claim(&self, name: &str, class: &str, size: &str, more: &str) -> Result<()> {
        let modes = if more.contains("accessModes") {
            ""
        } else {
            "accessModes: [ReadWriteOnce],"
        };
        self.apply(&format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{{modes} {more} \
             storageClassName: {class}, resources: {{requests: {{storage: {size}}}}}}}}}"
        ))
    }

    /// A pod that runs a shell, with a claim at /v, or as the device /v.
    pub(crate) fn pod(&self, name: &str, claim: &str, using: &Use) -> Result<()> {
        let volume = format!("persistentVolumeClaim: {{claimName: {claim}}}");
        self.pod_with(name, &volume, using, "")
    }

    /// One with another volume, and whatever else its specification says.
    pub(crate) fn pod_with(&self, name: &str, volume: &str, using: &Use, more: &str) -> Result<()> {
        let at = match using {
            Use::Mount => "volumeMounts: [{name: v, mountPath: /v}]".to_owned(),
            Use::ReadOnly => "volumeMounts: [{name: v, mountPath: /v, readOnly: true}]".to_owned(),
            Use::SubPath(path) => {
                format!("volumeMounts: [{{name: v, mountPath: /v, subPath: {path}}}]")
            }
            Use::Device => "volumeDevices: [{name: v, devicePath: /v}]".to_owned(),
        };
        self.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more} terminationGracePeriodSeconds: 0, \
             containers: [{{name: shell, image: localhost/shell:1, imagePullPolicy: Never, {at}}}], \
             volumes: [{{name: v, {volume}}}]}}}}"
        ))
    }

    /// Waits until pods are ready.
    pub(crate) fn ready(&self, pods: &[&str]) -> Result<()> {
        for pod in pods {
            self.wait("condition=Ready", &format!("pod/{pod}"))?;
        }
        Ok(())
    }

    /// Waits for what `kubectl wait --for` can.
    pub(crate) fn wait(&self, what: &str, of: &str) -> Result<()> {
        let (what, timeout) = (
            format!("--for={what}"),
            format!("--timeout={}s", LIMIT.as_secs()),
        );
        let waited = self.kubectl(&["wait", &what, &timeout, of]);
        waited.map(drop).with_context(|| self.look(of))
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !is_so()? {
            ensure!(Instant::now() < end, "{}: never: {what}", self.name);
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// What a shell in a pod prints.
    pub(crate) fn shell(&self, pod: &str, line: &str) -> Result<String> {
        let printed = self.kubectl(&["exec", pod, "--", "sh", "-c", line])?;
        Ok(printed.trim().to_owned())
    }

    /// One that may have to wait for the kubelet.
    pub(crate) fn shell_works(&self, pod: &str, line: &str) -> Result<()> {
        self.until(line, || Ok(self.shell(pod, line).is_ok()))
    }

    /// One that must fail.
    pub(crate) fn shell_fails(&self, pod: &str, line: &str) -> Result<String> {
        match self.shell(pod, line) {
            Ok(printed) => bail!("{line:?} did not fail, it printed {printed}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    pub(crate) fn delete(&self, what: &[&str]) -> Result<()> {
        self.kubectl(&[&["delete", "--wait"], what].concat())
            .map(drop)
    }

    /// One field of an object.
    pub(crate) fn field(&self, of: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", of, &format!("--output=jsonpath={{{path}}}")])
    }

    /// The node that a pod runs on.
    pub(crate) fn node_of(&self, pod: &str) -> Result<String> {
        self.field(&format!("pod/{pod}"), ".spec.nodeName")
    }

    /// What is known of an object that did not come to be.
    fn look(&self, of: &str) -> String {
        let events = self.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]);
        format!(
            "{of}: {}",
            events.unwrap_or_else(|error| format!("{error:#}"))
        )
    }
}

/// Keeps others away that would disturb, or be disturbed.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock()
}

/// What is left in the pools and mounted on the nodes.
pub(crate) fn left(bed: &Bed) -> Result<String> {
    let mut left = String::new();
    for node in NODES {
        for line in left_on(bed, node)?.lines() {
            writeln!(left, "{node}: {line}")?;
        }
    }
    Ok(left)
}

/// The same of one node.
pub(crate) fn left_on(bed: &Bed, node: &str) -> Result<String> {
    let look = "cd /var/lib/orlop && ls -d */volumes/* */snapshots/* */making/* */trash/* 2>/dev/null; \
                losetup --list --noheadings --output NAME,BACK-FILE | grep ' /var/lib/orlop/'; \
                grep -o '[^ ]*csi.orlop.dev/[0-9a-f]\\{64\\}[^ ]*\\|[^ ]*kubernetes.io~csi[^ ]*' /proc/mounts; true";
    bed.on(node, &["sh", "-c", look])
}

/// The pod of the chart on a node.
pub(crate) fn pod_on(bed: &Bed, node: &str, component: &str) -> Result<String> {
    let on = format!("--field-selector=spec.nodeName={node}");
    let of = format!("--selector=app.kubernetes.io/component={component}");
    bed.kubectl(&[
        "get",
        "pods",
        "--namespace",
        NAMESPACE,
        &of,
        &on,
        "--output=name",
    ])
    .map(|name| name.trim().to_owned())
}
