//! Which store, and how to reach it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientConfigKey, CopyMode, RetryConfig};
use serde::{Deserialize, Serialize};
use tidelock_connector::{Error, Result};

use crate::error::Cause;
use crate::local::Local;
use crate::object::{Multipart, Object};
use crate::store::Backend;

/// A store: its URL and the options of its client.
///
/// | URL | store |
/// |---|---|
/// | `s3://bucket/prefix` | S3, and everything that speaks its protocol |
/// | `file:///folder`, `/folder`, `folder` | a local folder |
/// | `gs://bucket/prefix` | Google Cloud Storage (feature `gcs`) |
/// | `az://container/prefix`, `abfss://…` | Azure Blob Storage (feature `azure`) |
/// | `memory:///name` | a store in this process, for tests |
///
/// Credentials come from the environment (`AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, web identity, container and
/// instance roles; the Google and Azure variables alike) and are never logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where the store is.
    pub url: String,
    /// How to reach it.
    pub storage: StorageOptions,
}

impl StoreConfig {
    /// The store behind `url`, reached as the environment says.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), storage: StorageOptions::default() }
    }
}

/// Options of a store's client; what is left out comes from the environment
/// (`AWS_REGION`, `AWS_ENDPOINT_URL`, …), then from the provider's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageOptions {
    /// The server, as `http://host:port`, where it is not the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Permits an endpoint without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<bool>,
    /// Puts the bucket into the host name instead of the path (S3). With an
    /// endpoint the endpoint must name the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_hosted_style: Option<bool>,
    /// The file with a Google service account's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// The name of the Azure storage account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// What a URL turned out to be: the URL as it is shown, and the backend.
pub(crate) fn open(config: &StoreConfig) -> Result<(String, Backend)> {
    let url = config.url.trim();
    let Some((scheme, rest)) = url.split_once("://") else {
        return match url {
            "" => Err(Error::config("the url of a store is empty")),
            folder => local(Path::new(folder)),
        };
    };
    match scheme {
        "file" => {
            let folder = url::Url::parse(url).ok().and_then(|url| url.to_file_path().ok());
            local(&folder.ok_or_else(|| {
                Error::config("a file url needs an absolute path: file:///folder").object(url)
            })?)
        }
        "memory" => {
            let (name, prefix) = split(rest.trim_start_matches('/'));
            let store = memory(name);
            let multipart = Multipart(Arc::clone(&store) as _);
            let mut backend = Object::new(store, prefix_path(url, prefix)?);
            backend.multipart = Some(multipart);
            backend.copy_mode = CopyMode::Create;
            Ok((url.to_owned(), Backend::Object(backend)))
        }
        "s3" | "s3a" => {
            let (bucket, prefix) = split(rest);
            let backend = s3(url, bucket, prefix_path(url, prefix)?, &config.storage)?;
            Ok((url.trim_end_matches('/').to_owned(), Backend::Object(backend)))
        }
        "gs" => gcs(url, rest, &config.storage),
        "az" | "azure" | "abfs" | "abfss" => azure(url, rest, &config.storage),
        other => Err(Error::config(format!(
            "no store has the scheme {other:?}; known are file, s3, gs, az, abfss and memory"
        ))
        .object(url)),
    }
}

fn split(rest: &str) -> (&str, &str) {
    rest.split_once('/').unwrap_or((rest, ""))
}

fn prefix_path(url: &str, prefix: &str) -> Result<Key> {
    Key::parse(prefix)
        .map_err(|e| Error::config("the path in the url is not a valid key").object(url).source(e))
}

fn local(folder: &Path) -> Result<(String, Backend)> {
    let absolute = std::path::absolute(folder).map_err(|e| {
        Error::config("the folder has no absolute path").object(folder.display()).source(e)
    })?;
    let url = url::Url::from_file_path(&absolute)
        .map_err(|()| Error::config("the folder has no url").object(folder.display()))?;
    Ok((url.to_string(), Backend::Local(Local::new(absolute))))
}

/// Stores in memory live as long as the process, under their names.
fn memory(name: &str) -> Arc<InMemory> {
    static STORES: Mutex<Option<HashMap<String, Arc<InMemory>>>> = Mutex::new(None);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores.get_or_insert_with(HashMap::new);
    Arc::clone(stores.entry(name.to_owned()).or_default())
}

/// Short, because the runtime tries again by itself, and knows how long.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 10,
        retry_timeout: Duration::from_secs(10),
    }
}

/// A conditional write that is tried again inside the client may answer
/// "precondition failed" to its own first attempt.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..retry() }
}

const TIMEOUTS: [(ClientConfigKey, &str); 2] =
    [(ClientConfigKey::ConnectTimeout, "5 seconds"), (ClientConfigKey::Timeout, "60 seconds")];

fn invalid(url: &str) -> impl FnOnce(object_store::Error) -> Error + '_ {
    move |e| Error::config("the store's options do not fit").object(url).source(Cause(e))
}

fn require_tls(endpoint: Option<&str>, allow_http: bool) -> Result<()> {
    match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && !allow_http => {
            Err(Error::config("the endpoint has no TLS; set allow_http = true to permit that")
                .with("endpoint", endpoint))
        }
        _ => Ok(()),
    }
}

fn s3(url: &str, bucket: &str, prefix: Key, options: &StorageOptions) -> Result<Object> {
    if bucket.is_empty() {
        return Err(Error::config("the url names no bucket: s3://bucket/prefix").object(url));
    }
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    for (key, value) in TIMEOUTS {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        // AWS_ENDPOINT_URL_S3 would win over a plain endpoint.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(allow) = options.allow_http {
        builder = builder.with_allow_http(allow);
    }
    if let Some(virtual_hosted) = options.virtual_hosted_style {
        builder = builder.with_virtual_hosted_style_request(virtual_hosted);
    }
    let value = |key| builder.get_config_value(&key);
    let endpoint =
        value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    let allow_http = value(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    require_tls(endpoint.as_deref(), allow_http.as_deref() == Some("true"))?;

    let has_credentials = [
        AmazonS3ConfigKey::AccessKeyId,
        AmazonS3ConfigKey::WebIdentityTokenFile,
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ]
    .into_iter()
    .any(|key| value(key).is_some());

    let store = Arc::new(builder.clone().with_retry(retry()).build().map_err(invalid(url))?);
    let once = builder.with_retry(no_retry()).build().map_err(invalid(url))?;
    let multipart = Multipart(Arc::clone(&store) as _);
    let mut object = Object::with_conditional(store, Arc::new(once), prefix);
    object.multipart = Some(multipart);
    object.endpoint = endpoint;
    if !has_credentials {
        object.hint = Some(
            "neither AWS_ACCESS_KEY_ID nor a role is in the environment, \
             so the instance's own role was asked for",
        );
    }
    Ok(object)
}

#[cfg(feature = "gcs")]
fn gcs(url: &str, rest: &str, options: &StorageOptions) -> Result<(String, Backend)> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

    let (bucket, prefix) = split(rest);
    let prefix = prefix_path(url, prefix)?;
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    for (key, value) in TIMEOUTS {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    let allow_http = options.allow_http.unwrap_or(false);
    if let Some(endpoint) = &options.endpoint {
        require_tls(Some(endpoint), allow_http)?;
        builder = builder.with_base_url(endpoint);
    }
    if allow_http {
        builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    if let Some(file) = &options.service_account {
        builder = builder.with_service_account_path(file);
    }
    let store = Arc::new(builder.clone().with_retry(retry()).build().map_err(invalid(url))?);
    let once = builder.with_retry(no_retry()).build().map_err(invalid(url))?;
    let multipart = Multipart(Arc::clone(&store) as _);
    let mut object = Object::with_conditional(store, Arc::new(once), prefix);
    object.multipart = Some(multipart);
    object.endpoint.clone_from(&options.endpoint);
    object.copy_mode = CopyMode::Create;
    Ok((url.trim_end_matches('/').to_owned(), Backend::Object(object)))
}

#[cfg(not(feature = "gcs"))]
fn gcs(url: &str, _rest: &str, _options: &StorageOptions) -> Result<(String, Backend)> {
    Err(Error::config("this binary was built without the feature gcs").object(url))
}

#[cfg(feature = "azure")]
fn azure(url: &str, rest: &str, options: &StorageOptions) -> Result<(String, Backend)> {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

    let (_, prefix) = split(rest);
    let prefix = prefix_path(url, prefix)?;
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(url);
    for (key, value) in TIMEOUTS {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let allow_http = options.allow_http.unwrap_or(false);
    if let Some(endpoint) = &options.endpoint {
        require_tls(Some(endpoint), allow_http)?;
        builder = builder.with_endpoint(endpoint.clone());
    }
    if allow_http {
        builder = builder.with_allow_http(true);
    }
    if let Some(account) = &options.account {
        builder = builder.with_account(account);
    }
    let store = Arc::new(builder.clone().with_retry(retry()).build().map_err(invalid(url))?);
    let once = builder.with_retry(no_retry()).build().map_err(invalid(url))?;
    let multipart = Multipart(Arc::clone(&store) as _);
    let mut object = Object::with_conditional(store, Arc::new(once), prefix);
    object.multipart = Some(multipart);
    object.endpoint.clone_from(&options.endpoint);
    object.copy_mode = CopyMode::Create;
    Ok((url.trim_end_matches('/').to_owned(), Backend::Object(object)))
}

#[cfg(not(feature = "azure"))]
fn azure(url: &str, _rest: &str, _options: &StorageOptions) -> Result<(String, Backend)> {
    Err(Error::config("this binary was built without the feature azure").object(url))
}
