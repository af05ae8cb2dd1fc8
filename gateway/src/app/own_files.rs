//! The files and sockets that say who the gateway is and whom it trusts.

use std::path::Path;

use anyhow::anyhow;
use tokio::runtime::Handle;

use super::home;
use crate::identity::IdentityFiles;
use crate::interception::CaFiles;
use crate::settings::Settings;

/// What the gateway shows of its own, and whom it trusts.
pub(super) struct OwnFiles {
    pub(super) identity: IdentityFiles,
    pub(super) interception: Option<CaFiles>,
}

impl OwnFiles {
    /// Reads what the settings name, and begins to follow the Workload API on `control`.
    ///
    /// # Errors
    /// What cannot be used, with its field.
    pub(super) fn load(settings: &Settings, base: &Path, control: &Handle) -> anyhow::Result<Self> {
        let mut identity = IdentityFiles::load(settings.identity.clone(), base, home(settings))
            .map_err(|error| anyhow!("{}", settings.problem(&error.field, error.fault.to_string())))?;
        identity.follow(control);
        let interception = settings.interception.as_ref().map(|files| CaFiles::load(files, base)).transpose();
        let interception =
            interception.map_err(|error| anyhow!("{}", settings.problem(error.field, error.message)))?;
        Ok(Self { identity, interception })
    }
}
