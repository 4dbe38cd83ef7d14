//! `tidelock doctor`.

use tidelock_store::{StorageOptions, Store, StoreConfig};

use super::{Exit, Failure, words};
use crate::doctor::examine;

/// Try what a store really does, and say which guarantees hold on it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The store: a folder, or s3://bucket/prefix, gs://…, az://…
    url: String,
    /// The server, as http://host:port, where it is not the provider's own.
    #[arg(long)]
    endpoint: Option<String>,
    /// The region of an S3 bucket.
    #[arg(long)]
    region: Option<String>,
    /// Permit an endpoint without TLS.
    #[arg(long)]
    allow_http: bool,
    /// Print the diagnosis as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn doctor(args: Args) -> Result<Exit, Failure> {
    let storage = StorageOptions {
        endpoint: args.endpoint,
        region: args.region,
        allow_http: args.allow_http.then_some(true),
        ..StorageOptions::default()
    };
    let store = Store::open(&StoreConfig { url: args.url, storage })?;
    let diagnosis = examine(&store).await?;
    if args.json {
        words::print_json(&diagnosis);
    } else {
        words::print(&diagnosis.render());
    }
    Ok(if diagnosis.is_exactly_once() { Exit::Done } else { Exit::No })
}
