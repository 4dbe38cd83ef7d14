//! A configuration that was found to make sense.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidelock_connector::{Error, Result};
use tidelock_json::{JsonDecoder, JsonOptions};

use crate::config::{Coordinate, FormatConfig, KafkaConfig};
use crate::fairness::Fairness;
use crate::rows::{self, Format};

/// What all readers of one source share.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: KafkaConfig,
    pub(crate) group: String,
    pub(crate) format: Format,
    pub(crate) coordinates: Vec<Coordinate>,
    /// Of every batch.
    pub(crate) schema: SchemaRef,
    /// How the partitions are served.
    pub(crate) fairness: Fairness,
}

impl Settings {
    /// `format` goes before what the configuration says.
    pub(crate) fn new(
        config: KafkaConfig,
        pipeline: &str,
        format: Option<Format>,
    ) -> Result<Arc<Self>> {
        config.validate()?;
        let coordinates = config.coordinates();
        let format = match (format, &config.format) {
            (Some(format), _) => format,
            (None, FormatConfig::Json { schema }) => Format::Json(tidelock_json::to_arrow(schema)?),
            (None, FormatConfig::Raw {}) => Format::Raw,
        };
        if let Format::Json(schema) = &format {
            if schema.fields().is_empty() {
                return Err(Error::config("the schema of the format has no columns"));
            }
            // What cannot be decoded is found now and not with the first message.
            JsonDecoder::new(Arc::clone(schema), JsonOptions::default())?;
        }
        let schema = rows::schema_of(&format, &coordinates)?;
        let group = config.group_id.clone().unwrap_or_else(|| pipeline.to_owned());
        Ok(Arc::new(Self {
            config,
            group,
            format,
            coordinates,
            schema,
            fairness: Fairness::default(),
        }))
    }
}
