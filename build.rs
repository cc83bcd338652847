//! Generates the wire from `proto/`, without protoc, and a `Debug` that never prints what is marked as a secret.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use protox::prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(["csi.proto", "pluginregistration.proto", "orlop.proto"])?;
    let pool = compiler.descriptor_pool();
    let (secretive, redaction) = redact(&pool)?;

    tonic_prost_build::configure()
        .btree_map(".")
        .skip_debug(secretive)
        .compile_fds(compiler.file_descriptor_set())?;

    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out).join("redaction.rs"), redaction)?;
    fs::write(Path::new(&out).join("methods.rs"), methods(&pool))?;
    let descriptor = compiler
        .include_source_info(false)
        .encode_file_descriptor_set();
    fs::write(Path::new(&out).join("descriptor.bin"), descriptor)?;
    Ok(())
}

/// The paths of all methods, as an expression.
fn methods(pool: &DescriptorPool) -> String {
    let paths: Vec<_> = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
        .collect();
    format!("&{paths:?}")
}

/// The messages that hold a secret, and a `Debug` for each that hides it.
fn redact(pool: &DescriptorPool) -> Result<(Vec<String>, String), Box<dyn Error>> {
    let mark = pool
        .get_extension_by_name("csi.v1.csi_secret")
        .ok_or("csi.proto defines csi_secret")?;
    let mut secretive = Vec::new();
    let mut code = String::new();
    for message in pool.all_messages() {
        if !message.fields().any(|field| is_secret(&field, &mark)) {
            continue;
        }
        if message.parent_message().is_some() || message.oneofs().len() > 0 {
            return Err(format!(
                "{}: teach build.rs to hide its secrets",
                message.full_name()
            )
            .into());
        }
        let name = message.name();
        write!(
            code,
            "impl ::core::fmt::Debug for {name} {{
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{
                    f.debug_struct({name:?})"
        )?;
        for field in message.fields() {
            let name = field.name();
            if is_secret(&field, &mark) {
                write!(code, ".field({name:?}, &format_args!(\"redacted\"))")?;
            } else {
                write!(code, ".field({name:?}, &self.{name})")?;
            }
        }
        code.push_str(".finish() } }\n");
        secretive.push(format!(".{}", message.full_name()));
    }
    Ok((secretive, code))
}

fn is_secret(field: &FieldDescriptor, mark: &ExtensionDescriptor) -> bool {
    field.options().get_extension(mark).as_bool() == Some(true)
}
