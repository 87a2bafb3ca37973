//! What `run` serves without a configuration, and how to try it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use data_encoding::HEXLOWER;
use http::Method;

use super::sign::{bind, curl, quote, unknown};
use crate::clock::Clock;
use crate::config::{self, Environment, Loaded};
use crate::scheme::Params;
use crate::scheme::catalog::Catalog;
use crate::scheme::sign::Draft;

/// Served when there is no configuration.
const CONFIG: &str = include_str!("../../rules/quickstart.yaml");
const CONFIG_NAME: &str = "rules/quickstart.yaml";
/// The variable that holds its secret.
const SECRET_VARIABLE: &str = "HOOKWARD_DEMO_SECRET";
/// Variables that it reads beside, where a port is taken.
const ADDRESS_VARIABLES: [&str; 2] = ["HOOKWARD_ADDRESS", "HOOKWARD_ADMIN_ADDRESS"];
const PROVIDER: &str = "github";
const PATH: &str = "/hooks/github";
const BODY: &str = r#"{"zen":"Keep it logically awesome."}"#;

/// The built-in configuration with its secret.
#[derive(Debug)]
pub(super) struct Quickstart {
    secret: String,
    /// All of the environment that it reads.
    pub(super) env: Environment,
}

impl Quickstart {
    /// Takes the secret from the environment, or draws one.
    pub(super) fn new(env: &Environment) -> anyhow::Result<Self> {
        let secret = match env.get(SECRET_VARIABLE).filter(|secret| !secret.is_empty()) {
            Some(secret) => secret.to_owned(),
            None => draw()?,
        };
        let addresses = ADDRESS_VARIABLES
            .iter()
            .filter_map(|name| Some((*name, env.get(name)?)));
        let variables = addresses.chain([(SECRET_VARIABLE, secret.as_str())]);
        Ok(Self {
            env: Environment::from_pairs(variables),
            secret,
        })
    }

    pub(super) fn load(&self) -> Loaded {
        config::load_text(CONFIG_NAME, CONFIG, Path::new("."), &self.env)
    }

    /// What a person may paste once the listener is bound to `address`.
    pub(super) fn invitation(&self, address: SocketAddr) -> anyhow::Result<String> {
        let url = format!("https://{address}{PATH}");
        let catalog = Catalog::built_in();
        let selected = catalog
            .find(PROVIDER)
            .map_err(|error| unknown(error, &catalog))?;
        let scheme = bind(&selected, &Params::new())?;
        let key = scheme
            .secret_key("demo".into(), self.secret.as_bytes(), None)
            .map_err(anyhow::Error::msg)?;
        let draft = Draft {
            method: Method::POST,
            url: super::url::parse(&url)?,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: BODY.as_bytes().to_vec(),
        };
        let signed = scheme.sign(draft, &key, Clock::system().now())?;
        let send = format!(
            "printf %s {} | hookward send --provider {PROVIDER} --secret {} --body - --to {url} \
             --insecure",
            quote(BODY),
            quote(&format!("value:{}", self.secret)),
        );
        Ok(format!(
            "No configuration was found: this is a demo with a certificate and a secret of its own.\n\
             A verified delivery, with curl or with hookward itself:\n\n  {}\n\n  {send}\n\n\
             Change a byte of the body and it is refused. Your own: `hookward run -c FILE`.",
            curl(&signed, &["-k"])
        ))
    }
}

/// A secret of this run.
fn draw() -> anyhow::Result<String> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).context("the system has no randomness")?;
    Ok(HEXLOWER.encode(&bytes))
}
