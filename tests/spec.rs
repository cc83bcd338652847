//! Holds our wire against the official CSI descriptor, and every secret in it against being printed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Write as _;

use orlop::csi::proto;
use orlop::host::command::{Command, Runner, Tools};
use orlop::host::gate::Gate;
use prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, ServiceDescriptor, Syntax, Value,
};

const SECRET: &str = "hunter2";

#[test]
fn the_wire_is_the_official_one_fact_by_fact() {
    let tools = Tools::new(Gate::open());
    if tools.run(&Command::query("go").arg("version")).is_err() {
        writeln!(
            std::io::stderr(),
            "SKIPPED: the wire was not compared with the official one, because go is not installed"
        )
        .expect("the standard error is open");
        return;
    }

    let official = tools
        .run(&Command::query("go").args([
            "run",
            "-C",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec"),
            ".",
        ]))
        .expect("the official descriptor prints");

    let official: BTreeSet<_> = official.lines().map(str::to_owned).collect();
    let ours = facts();
    let missing = official.difference(&ours).map(|fact| format!("- {fact}"));
    let added = ours.difference(&official).map(|fact| format!("+ {fact}"));
    let differences: Vec<_> = missing.chain(added).collect();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    assert!(official.len() > 600, "only {} facts", official.len());
}

#[test]
fn no_secret_is_printed_by_debug() {
    let pool = pool();
    let mark = pool
        .get_extension_by_name("csi.v1.csi_secret")
        .expect("the mark is defined");
    let secret_fields: Vec<_> = pool
        .all_messages()
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter(|field| field.options().get_extension(&mark).as_bool() == Some(true))
        .collect();

    for field in &secret_fields {
        let message = field.parent_message();
        let printed = print(message.name(), &with_secret(message, field));

        assert!(!printed.contains(SECRET), "{printed}");
        assert!(
            printed.contains(&format!("{}: redacted", field.name())),
            "{printed}"
        );
        assert!(
            message
                .fields()
                .all(|other| printed.contains(&format!("{}: ", other.name()))),
            "{printed}"
        );
    }
    assert!(
        secret_fields.len() > 20,
        "only {} fields",
        secret_fields.len()
    );
}

/// The message with its secret field filled, on the wire.
fn with_secret(message: &MessageDescriptor, field: &FieldDescriptor) -> Vec<u8> {
    let secret = || Value::String(SECRET.to_owned());
    let mut filled = DynamicMessage::new(message.clone());
    let value = if field.is_map() {
        Value::Map([(MapKey::String(SECRET.to_owned()), secret())].into())
    } else {
        secret()
    };
    filled.set_field(field, value);
    filled.encode_to_vec()
}

/// Decodes as the generated type of that name, and prints it.
fn print(name: &str, wire: &[u8]) -> String {
    fn decoded<M: Message + Default + Debug>(wire: &[u8]) -> String {
        format!("{:?}", M::decode(wire).expect("it was just encoded"))
    }
    macro_rules! any_of {
        ($($message:ident)*) => {
            match name {
                $(stringify!($message) => decoded::<proto::$message>(wire),)*
                _ => panic!("{name} holds a secret: add it to this list"),
            }
        };
    }
    any_of! {
        CreateVolumeRequest DeleteVolumeRequest ControllerPublishVolumeRequest ControllerUnpublishVolumeRequest
        ValidateVolumeCapabilitiesRequest ControllerListVolumeHealthRequest ControllerGetVolumeHealthRequest
        ControllerModifyVolumeRequest CreateSnapshotRequest DeleteSnapshotRequest ListSnapshotsRequest
        GetSnapshotRequest ControllerExpandVolumeRequest NodeStageVolumeRequest NodePublishVolumeRequest
        NodeGetStorageHealthRequest NodeExpandVolumeRequest CreateVolumeGroupSnapshotRequest
        DeleteVolumeGroupSnapshotRequest GetVolumeGroupSnapshotRequest GetMetadataAllocatedRequest
        GetMetadataDeltaRequest
    }
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(proto::DESCRIPTOR).expect("build.rs wrote a whole descriptor")
}

/// Our descriptor in the lines of `spec/main.go`.
fn facts() -> BTreeSet<String> {
    let pool = pool();
    let file = pool.get_file_by_name("csi.proto").expect("it is ours");
    let mut facts = Facts(BTreeSet::new());
    let syntax = match file.syntax() {
        Syntax::Proto2 => "proto2",
        Syntax::Proto3 => "proto3",
    };
    facts.add(format!("file {} {syntax}", file.package_name()));
    facts.options(file.package_name(), &file.options());
    for extension in file.extensions() {
        let name = extension.full_name();
        facts.add(format!(
            "extension {name} {}",
            extension.containing_message().full_name()
        ));
        facts.add(format!(
            "field {name} {} {} {} map=false oneof=- presence={} json={}",
            extension.number(),
            label(extension.cardinality()),
            kind(&extension.kind()),
            extension.supports_presence(),
            extension.json_name(),
        ));
        facts.options(name, &extension.options());
    }
    for service in file.services() {
        facts.service(&service);
    }
    file.enums().for_each(|kind| facts.enumeration(&kind));
    file.messages().for_each(|message| facts.message(&message));
    facts.0
}

struct Facts(BTreeSet<String>);

impl Facts {
    fn add(&mut self, fact: String) {
        self.0.insert(fact);
    }

    fn options(&mut self, of: &str, options: &DynamicMessage) {
        let plain = options
            .fields()
            .map(|(option, value)| (option.full_name().to_owned(), value));
        let extensions = options
            .extensions()
            .map(|(option, value)| (option.full_name().to_owned(), value));
        for (option, value) in plain.chain(extensions) {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            self.add(format!("option {of} {option} = {value}"));
        }
    }

    fn service(&mut self, service: &ServiceDescriptor) {
        self.add(format!("service {}", service.full_name()));
        self.options(service.full_name(), &service.options());
        for method in service.methods() {
            self.add(format!(
                "method {} {} -> {} streams={},{}",
                method.full_name(),
                method.input().full_name(),
                method.output().full_name(),
                method.is_client_streaming(),
                method.is_server_streaming(),
            ));
            self.options(method.full_name(), &method.options());
        }
    }

    fn message(&mut self, message: &MessageDescriptor) {
        let name = message.full_name();
        self.add(format!("message {name}"));
        self.options(name, &message.options());
        for field in message.fields() {
            self.field(&field);
        }
        for range in message.reserved_ranges() {
            self.add(format!(
                "reserved {name} {} to {}",
                range.start,
                range.end - 1
            ));
        }
        for word in message.reserved_names() {
            self.add(format!("reserved {name} {word}"));
        }
        message
            .child_enums()
            .for_each(|kind| self.enumeration(&kind));
        message
            .child_messages()
            .for_each(|child| self.message(&child));
    }

    fn field(&mut self, field: &FieldDescriptor) {
        let oneof = field.containing_oneof();
        self.add(format!(
            "field {} {} {} {} map={} oneof={} presence={} json={}",
            field.full_name(),
            field.number(),
            label(field.cardinality()),
            kind(&field.kind()),
            field.is_map(),
            oneof.as_ref().map_or("-", |oneof| oneof.name()),
            field.supports_presence(),
            field.json_name(),
        ));
        self.options(field.full_name(), &field.options());
    }

    fn enumeration(&mut self, kind: &EnumDescriptor) {
        let name = kind.full_name();
        self.add(format!("enum {name}"));
        self.options(name, &kind.options());
        for value in kind.values() {
            let value_name = format!("{name}.{}", value.name());
            self.add(format!("value {value_name} {}", value.number()));
            self.options(&value_name, &value.options());
        }
        for range in kind.reserved_ranges() {
            self.add(format!(
                "reserved {name} {} to {}",
                range.start(),
                range.end()
            ));
        }
        for word in kind.reserved_names() {
            self.add(format!("reserved {name} {word}"));
        }
    }
}

fn label(cardinality: Cardinality) -> &'static str {
    match cardinality {
        Cardinality::Optional => "optional",
        Cardinality::Required => "required",
        Cardinality::Repeated => "repeated",
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}
