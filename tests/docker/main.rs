//! The Docker volume plugin: by its protocol, and with a real Docker Engine.

mod alone;
mod database;
mod engine;
mod images;
mod managed;
mod package;
mod plugin;
mod protocol;
mod volumes;

#[path = "../support/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;
