//! AWS Secrets Manager. The SDK finds the gateway's own login and signs; what it sends and receives goes through the
//! client that the other stores use.
//!
//! **Invariant:** of an answer only the value and the version's id are taken, of an error only its code. A login is
//! found anew, and the question asked again once, before it is called refused.
//!
//! Deliberately lacks: programs that print credentials (`credential_process`) and single sign-on, whose logins are a
//! person's. The gateway starts no other program.

mod connector;
mod failure;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Builder, SharedCredentialsProvider};
use tokio::sync::Mutex;
use tollgate_policy::policy::{AwsStore, SecretRef};
use zeroize::Zeroizing;

use self::connector::{Connector, Purpose};
use super::{Fetched, field};
use crate::dial::Dialable;
use crate::error::Failure;
use crate::http::{self, TlsFiles};
use crate::read::{self, off_runtime};
use crate::reference::Reference;
use crate::refusals::Refusals;

/// The label of the version that is in use.
const CURRENT: &str = "AWSCURRENT";
/// The first attempt included. The cache has a back-off of its own.
const ATTEMPTS: u32 = 2;
/// How long a login rests that AWS refused, unless a file that it may be from changes. Instances and containers get others by themselves.
const REST: Duration = Duration::from_secs(30);
/// Variables that name files of logins.
const FILES: [&str; 3] = ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"];

pub(super) struct Aws {
    definition: AwsStore,
    dialable: Dialable,
    /// Made on first use. It holds the login, and what it once read of profile and CA files.
    client: Mutex<Option<Arc<Client>>>,
    refusals: Refusals,
}

impl Aws {
    pub(super) fn new(definition: AwsStore, dialable: Dialable) -> Self {
        Self { definition, dialable, client: Mutex::new(None), refusals: Refusals::new() }
    }

    /// Somebody says that a login that was refused may be shown again.
    pub(super) fn open(&self) {
        self.refusals.open();
    }

    /// The secret's text or bytes, or the named member of the JSON object that they are.
    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let files = self.login_files();
        let stamp = off_runtime(move || Ok(format!("{:?}", read::stamp(files.iter())))).await?;
        let input = self.refusals.input(&[stamp.as_bytes()]);
        if let Some(failure) = self.refusals.barred(input) {
            return Err(failure);
        }
        let fetched = self.asked(reference).await;
        match fetched {
            Err(failure @ Failure::Login(_)) => self.refusals.refused(input, failure, REST),
            _ => self.refusals.taken(input),
        }
        fetched
    }

    /// The files that the login may be from, as far as they are named.
    fn login_files(&self) -> Vec<PathBuf> {
        let named = FILES.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        self.definition.credentials_file.iter().cloned().chain(named).chain(home).collect()
    }

    async fn asked(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let held = self.client.lock().await.clone();
        if let Some(client) = &held {
            match read(client, &reference.secret).await {
                // The files may hold another login, or other authorities, by now.
                Err(Failure::Login(_) | Failure::Tls(_)) => {}
                other => return other,
            }
        }
        let client = self.other_than(held.as_ref()).await?;
        read(&client, &reference.secret).await
    }

    /// A new client, unless another fetch has made one meanwhile.
    async fn other_than(&self, held: Option<&Arc<Client>>) -> Result<Arc<Client>, Failure> {
        let mut current = self.client.lock().await;
        match current.as_ref() {
            Some(other) if !held.is_some_and(|held| Arc::ptr_eq(held, other)) => Ok(Arc::clone(other)),
            _ => Ok(Arc::clone(current.insert(Arc::new(self.connect().await?)))),
        }
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let tls = TlsFiles { ca: self.definition.ca.clone(), shown: None };
        let reach = http::Reach::of_store(tls, Arc::clone(&self.dialable));
        let http = off_runtime(move || http::build(&reach)).await?;
        let to = |reach| Connector::new(http.clone(), Arc::clone(&self.dialable), reach);
        let config = self.logged_in(to(Purpose::Logins)).await;
        let mut builder = Builder::from(&config).http_client(to(Purpose::Secrets));
        if let Some(endpoint) = &self.definition.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Ok(Client::from_conf(builder.build()))
    }

    /// The configuration with the provider of the login. A role and a profile are the operator's to name: the
    /// gateway's own cloud identity serves no store that somebody else defined.
    async fn logged_in(&self, http: Connector) -> SdkConfig {
        let AwsStore { region, credentials_file, profile, role_arn, .. } = &self.definition;
        let region = Region::new(region.clone());
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .http_client(http.clone());
        if credentials_file.is_some() || profile.is_some() {
            // What is named is all that counts, whatever the environment says.
            let files = match credentials_file {
                Some(file) => {
                    EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build()
                }
                None => EnvConfigFiles::default(),
            };
            let profile = profile.as_deref().unwrap_or("default");
            let provider = ProviderConfig::without_region().with_region(Some(region)).with_http_client(http);
            let login = ProfileFileCredentialsProvider::builder()
                .configure(&provider)
                .profile_files(files.clone())
                .profile_name(profile);
            loader = loader.profile_files(files).profile_name(profile).credentials_provider(login.build());
        }
        let config = loader.load().await;
        let Some(role) = role_arn else { return config };
        let role =
            AssumeRoleProvider::builder(role).session_name("tollgate").configure(&config).build().await;
        config.into_builder().credentials_provider(SharedCredentialsProvider::new(role)).build()
    }
}

async fn read(client: &Client, secret: &SecretRef) -> Result<Fetched, Failure> {
    let question = client.get_secret_value().secret_id(&secret.path);
    let question = match &secret.version_id {
        Some(id) => question.version_id(id),
        // Said even where it is the default.
        None => question.version_stage(secret.stage.as_deref().unwrap_or(CURRENT)),
    };
    let mut answer = question.send().await.map_err(|error| failure::of(&error))?;
    let text = answer.secret_string.take().map(String::into_bytes);
    let bytes = text.or_else(|| answer.secret_binary.take().map(|bytes| bytes.into_inner()));
    let value = Zeroizing::new(bytes.ok_or(Failure::Malformed("the secret has neither text nor bytes"))?);
    Ok(Fetched {
        value: field::of(value, &secret.fields)?,
        version: answer.version_id().and_then(label),
        lease: None,
        expires: None,
    })
}

/// The id as AWS documents it: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>.
fn label(id: &str) -> Option<Arc<str>> {
    let is_plain = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_plain.then(|| id.into())
}
