//! The second day: what the doctor finds, what it gives to others, and what is pruned.

use std::fs;

use super::Person;

#[test]
fn what_is_deleted_and_stuck_is_pruned_only_when_asked() {
    let person = Person::new(&[]);
    person.runs("volume create data --size 1MiB");
    let stuck = person.path("data/default/trash/old.1");
    fs::create_dir_all(&stuck).expect("the pool can be written");
    fs::write(stuck.join("file"), vec![7; 8192]).expect("the pool can be written");

    let shown = person.runs("prune");
    let kept = stuck.exists();
    let pruned = person.runs("prune --yes -o json");
    let after = person.runs("prune --yes");

    assert_eq!(shown.rows()[1], ["stuck", "default", "old.1", "8KiB"]);
    assert!(shown.err.contains("nothing was removed"), "{shown:?}");
    assert!(kept && !stuck.exists());
    assert_eq!(pruned.json()[0]["name"], "old.1");
    assert!(after.err.contains("nothing is left over"), "{after:?}");
    assert_eq!(person.runs("volume ls -o name").out, "default/data\n");
}

#[test]
fn an_inline_volume_is_pruned_when_its_pod_is_gone() {
    let person = Person::new(&[]);
    for name in ["csi-here", "csi-gone"] {
        person.runs(&format!("volume create {name} --size 1MiB"));
        let file = person.path(&format!("data/default/volumes/{name}/volume.json"));
        let record = fs::read_to_string(&file).expect("it was created");
        let inline = record.replacen('{', "{\"ephemeral\": true,", 1);
        fs::write(file, inline).expect("the pool can be written");
    }
    let volume = person.path("kubelet/pods/1234/volumes/kubernetes.io~csi/scratch");
    let elsewhere = person.tries("prune --yes --kubelet ~/nowhere");
    fs::create_dir_all(&volume).expect("it is new");
    fs::write(
        volume.join("vol_data.json"),
        r#"{"volumeHandle":"csi-here"}"#,
    )
    .expect("it is new");

    let pruned = person.runs("prune --yes --kubelet ~/kubelet -o name");

    assert!(
        elsewhere.err.contains("inline volumes stay"),
        "{elsewhere:?}"
    );
    assert_eq!(pruned.out, "csi-gone\n");
    assert_eq!(person.runs("volume ls -o name").out, "default/csi-here\n");
}
