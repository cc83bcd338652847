//! The layer cache from outside: real clients and scripted registries, all on loopback.

#[path = "../support/authority.rs"]
mod authority;
mod cache;
mod clients;
mod cluster;
mod conformance;
mod credentials;
mod disk;
mod engines;
mod errors;
mod faults;
mod leases;
mod liar;
mod lines;
mod mirror;
mod noise;
mod people;
mod process;
mod swarm;
mod tenancy;
mod trust;
mod upstream;
mod wedged;
mod wiring;
