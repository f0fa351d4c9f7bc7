//! `bowline config`

use std::path::Path;

use serde::Serialize;

use super::output::Output;
use super::{End, Outcome};
use crate::api::client::Client;
use crate::api::types::ConfigReply;
use crate::config::{Config, LoadError, Problem, load};

/// What `config check -o json` prints.
#[derive(Debug, Serialize)]
struct CheckReply {
    file: String,
    errors: Vec<CheckError>,
}

#[derive(Debug, Serialize)]
struct CheckError {
    line: usize,
    column: usize,
    message: String,
    hint: Option<String>,
}

pub(super) fn check(file: &Path, output: Output) -> Outcome {
    let reply = |errors| CheckReply { file: file.display().to_string(), errors };
    match load(file) {
        Ok(config) => {
            output.confirm(&reply(Vec::new()), |_| summary(file, &config))?;
            Ok(End::Done)
        }
        Err(LoadError::Wrong(problems)) if output.is_json() => {
            let errors = problems.list.into_iter().map(CheckError::from).collect();
            output.show(&reply(errors), |_| String::new())?;
            Ok(End::Unhealthy)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn show(client: &Client, output: Output) -> Outcome {
    let config: ConfigReply = client.get("/v1/config").await?;
    output.show(&config, |config| config.toml.clone())?;
    Ok(End::Done)
}

fn summary(file: &Path, config: &Config) -> String {
    let (pools, vips) = (config.model.pools(), config.model.vips());
    let backends: usize = pools.values().map(|pool| pool.backends.len()).sum();
    let file = file.display();
    format!("{file}: no errors ({} pools, {backends} backends, {} VIPs)\n", pools.len(), vips.len())
}

impl From<Problem> for CheckError {
    fn from(Problem { line, column, message, hint }: Problem) -> Self {
        Self { line, column, message, hint }
    }
}
