#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unused,
    clippy::allow_attributes_without_reason,
    clippy::allow_attributes,
    clippy::unimplemented
)]
//! shim
use crate::problem::Report;
use crate::route::matcher::RouteTable;
use crate::scheme::catalog::Catalog;
use crate::secret::Secret;
use crate::settings::{Limits, ListenerSettings, UpstreamSettings};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
#[derive(Clone, Debug)]
pub struct Environment(HashMap<String, String>);
impl Environment {
    pub fn from_process() -> Self {
        Self(std::env::vars().collect())
    }
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(a, b)| (a.into(), b.into()))
                .collect(),
        )
    }
    pub fn at(self, _: crate::units::UnixTime) -> Self {
        self
    }
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}
#[derive(Debug)]
pub struct Config {
    pub admin: Option<SocketAddr>,
    pub listeners: Vec<ListenerSettings>,
    pub limits: Limits,
    pub upstreams: Vec<UpstreamSettings>,
    pub routes: RouteTable,
}
#[derive(Debug)]
pub struct Loaded {
    pub config: Option<Config>,
    pub report: Report,
    pub watched: Vec<PathBuf>,
    pub unreadable: bool,
}
pub fn load(file: &Path, env: &Environment) -> Loaded {
    unimplemented!()
}
pub fn load_text(name: &str, text: &str, dir: &Path, env: &Environment) -> Loaded {
    unimplemented!()
}
pub fn schema() -> serde_json::Value {
    unimplemented!()
}
pub fn secret(reference: &str, env: &Environment, base: &Path) -> Result<Secret, String> {
    unimplemented!()
}
pub fn catalog(providers_dir: Option<&Path>) -> Result<Catalog, Vec<Report>> {
    Ok(Catalog::built_in())
}
