//! Classes of attributes: the disks here have nothing that could be changed, and who asks is told so.

use anyhow::Result;

use crate::Test;
use crate::space::{Space, Use};

pub(crate) const TESTS: &[Test] = &[(
    "attributes_that_a_volume_has_not_are_refused_and_it_goes_on",
    refused,
)];

fn refused(space: &Space<'_>) -> Result<()> {
    let class = format!("{}-few", space.name);
    space.apply(&format!(
        "{{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {{name: {class}}}, \
         driverName: csi.orlop.dev, parameters: {{maxInodes: \"1000\"}}}}"
    ))?;
    space.claim("data", "disk", "64Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    let asked = format!("volumeAttributesClassName: {class},");
    space.claim("new", "disk", "64Mi", &asked)?;
    space.pod("waiting", "new", &Use::Mount)?;

    let change = format!("{{\"spec\": {{\"volumeAttributesClassName\": \"{class}\"}}}}");
    space.kubectl(&["patch", "pvc", "data", "--patch", &change])?;
    for (claim, why) in [
        ("data", "can be changed: nothing"),
        ("new", "directory pool with project quotas"),
    ] {
        let of = format!("--field-selector=involvedObject.name={claim}");
        space.until(why, || {
            let told = space.kubectl(&["get", "events", &of, "--output=jsonpath={..message}"])?;
            Ok(told.contains("maxInodes") && told.contains(why))
        })?;
    }

    space.shell_works("user", "echo still > /v/file")?;
    space.delete(&["pod/user", "pod/waiting", "pvc/data", "pvc/new"])?;
    space.delete(&[&format!("volumeattributesclass/{class}")])
}
