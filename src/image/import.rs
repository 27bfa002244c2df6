//! `import`: a root file system's tar becomes an image of one layer.

use std::io::Read;
use std::time::SystemTime;

use sbx_sandbox::config::Config;

use crate::change::apply_changes;
use crate::config::{History, ImageConfig};
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::pull::Limits;
use crate::reference::Reference;
use crate::sink::LayerSink;
use crate::store::{Image, Store};
use crate::timestamp::to_rfc3339;

/// What to make of the tar.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// Name of the image; `None` leaves it without one.
    pub reference: Option<Reference>,
    /// `--change`, in order.
    pub changes: Vec<String>,
    /// `--message`; empty is `Imported from -`.
    pub message: String,
    /// `--platform`; `None` is the host's.
    pub platform: Option<Platform>,
    /// What is refused as too big.
    pub limits: Limits,
}

/// Makes an image of a tar (plain, gzip or zstd).
///
/// # Errors
/// A bad instruction, a stream that is no tar, or the converter's error; the store is then as before.
pub fn import(
    store: &Store,
    input: &mut dyn Read,
    request: &ImportRequest,
    sink: &dyn LayerSink,
    progress: &dyn Progress,
) -> Result<Image> {
    let mut config = Config::default();
    apply_changes(&mut config, &request.changes)?;
    if request.reference.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(Error::Archive("cannot import digest reference".to_owned()));
    }
    let mut draft = Draft::new(store)?;
    draft.add_layer(input, request.limits, sink, progress)?;
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let created = to_rfc3339(SystemTime::now());
    let comment = match request.message.as_str() {
        "" => "Imported from -".to_owned(),
        message => message.to_owned(),
    };
    let image = ImageConfig {
        created: Some(created.clone()),
        comment: comment.clone(),
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config,
        history: vec![History { created: Some(created), comment, ..History::default() }],
        ..ImageConfig::default()
    };
    draft.finish(image, request.reference.iter().cloned().collect())
}
