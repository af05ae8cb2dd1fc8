//! What a user writes: resources as plain data, each value beside the file and line that it stands on.
//!
//! **Invariant:** whatever was written is either in the model or reported with file, line and field; nothing is skipped silently.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::giving_way::giving_way;
use crate::name::{Name, ResourceId};

mod allowed;
mod approval;
mod boundary;
mod budget;
mod credential;
mod destination;
mod field;
mod from;
mod grant;
mod json;
mod mint;
mod proxy;
mod resilience;
mod schema;
mod settings;
mod source;
mod source_pool;
mod store;
mod verify;
mod yaml;

#[cfg(test)]
mod tests;

pub(crate) use allowed::{
    AllowedNamespaces, OperatorWord, RequirementSpec, SelectorSpec, SomeNamespacesSpec,
};
pub(crate) use approval::ApprovalSpec;
pub(crate) use boundary::{BoundarySpec, read_boundaries};
pub(crate) use budget::{
    AppliesTo, BudgetSpec, CallSelectorSpec, DowngradeSpec, OnExhaustedSpec, RaiseSpec, ThresholdSpec,
};
pub(crate) use credential::{
    ClientCertificateSpec, CredentialSpec, HmacSpec, HmacWord, InjectSpec, Injections, KeyEncodingWord,
    SigV4Spec, SignatureWord,
};
pub(crate) use destination::{
    ApprovalWord, DestinationSpec, HttpWord, OriginateWord, ProtocolWord, ScrubWord,
};
pub(crate) use field::{Address, Instant, List};
pub use field::{Interval, MOST_ELEMENTS};
pub use from::MOST_KEYS;
pub(crate) use from::{FromSpec, Froms, Weight};
pub(crate) use grant::{
    AllowSpec, AssumeSpec, CallerSpec, ClassWord, GrantSpec, LimitSpec, ServiceAccountSpec, TokenCallerSpec,
    UnpricedWord, WindowWord,
};
pub(crate) use mint::{
    AlgorithmWord, AwsAssumeRoleSpec, AwsWebIdentitySpec, ClientAuthSpec, GithubAppSpec, JwtBearerSpec,
    MintSpec, TokenExchangeSpec,
};
pub use schema::{boundary_schema, kind_schemas, tidy};
pub(crate) use settings::Single;
pub use settings::read_settings;
pub(crate) use source::guess;
pub use source::{Source, nearest};
pub(crate) use source_pool::{FailoverWord, OrderWord, SourcePoolSpec, StickyWord};
pub(crate) use store::{
    AppRoleSpec, AuthSpec, AwsSpec, CertificateLoginSpec, EnvSpec, StoreSpec, SvidSpec, TokenLoginSpec,
    VaultSpec,
};
pub(crate) use verify::VerifySpec;
pub(crate) use yaml::Fractions;

const API_VERSION: &str = "tollgate.dev/v1alpha1";

/// One file of resources or of the catalog, or one object of a cluster.
#[derive(Debug, Clone, Default)]
pub struct SourceFile {
    /// As it is to be named in problems. Empty: this is an object, which its kind and its id name.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

impl SourceFile {
    /// An object of a cluster: JSON with `apiVersion`, `kind`, `spec`, and of `metadata` the namespace and the name alone.
    ///
    /// `withheld: {because: TEXT}` beside them says why it is not to be in force: it is broken as one with a problem is, and `spec` may have
    /// less than it should. With `yields: true` it claims only hosts that no other has.
    /// `unreadable: TEXT` stands in place of a `spec` that was not read, and says why: it may have said anything.
    /// `heldHosts: [HOST]`, of a Destination, are the hosts that it is known to hold: its claim to one of them comes before those of others.
    #[must_use]
    pub fn object(text: String) -> Self {
        Self { path: PathBuf::new(), text }
    }

    /// Whether it is an object of a cluster.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.path.as_os_str().is_empty()
    }
}

/// One thing that is wrong with what was written. Shown as `file:line: field: message`, and of an object as `Grant shop/web: field: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as the [`SourceFile`] names it; empty where it is an object.
    pub file: PathBuf,
    /// Counted from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The resource and the path in it, e.g. `Grant/checkout-openai: spec.limits[0].per`; empty where no field is meant.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// The resource that it is about, as `Kind/id`; less of it, or nothing, where that is not known.
    pub fn resource(&self) -> &str {
        self.field.split_once(": ").map_or(&self.field, |(resource, _)| resource)
    }

    /// Where in the resource; empty where no field is meant.
    pub fn path(&self) -> &str {
        self.field.split_once(": ").map_or("", |(_, path)| path)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            _ if self.file.as_os_str().is_empty() => {
                return match self.field.split_once('/') {
                    Some((kind, rest)) => write!(f, "{kind} {rest}: {}", self.message),
                    None => write!(f, "{}: {}", self.field, self.message),
                };
            }
            0 => write!(f, "{}: ", self.file.display())?,
            line => write!(f, "{}:{line}: ", self.file.display())?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// All resources that were written, as plain data.
///
/// A resource has whatever could be read of it; [`crate::compile`] sees to what is missing.
#[derive(Debug, Default)]
pub struct Model {
    pub(crate) destinations: Vec<Resource<DestinationSpec>>,
    pub(crate) stores: Vec<Resource<StoreSpec>>,
    pub(crate) credentials: Vec<Resource<CredentialSpec>>,
    pub(crate) grants: Vec<Resource<GrantSpec>>,
    pub(crate) approvals: Vec<Resource<ApprovalSpec>>,
    pub(crate) source_pools: Vec<Resource<SourcePoolSpec>>,
    pub(crate) budgets: Vec<Resource<BudgetSpec>>,
    /// Whether a document was left out of which not even kind and name are known: it may be what a reference means.
    pub(crate) incomplete: bool,
    index: Index,
}

/// Where the resources of each kind stand in the model.
#[derive(Debug, Default)]
struct Index {
    destinations: HashMap<ResourceId, usize>,
    stores: HashMap<ResourceId, usize>,
    credentials: HashMap<ResourceId, usize>,
    grants: HashMap<ResourceId, usize>,
    approvals: HashMap<ResourceId, usize>,
    source_pools: HashMap<ResourceId, usize>,
    budgets: HashMap<ResourceId, usize>,
}

/// One resource and where it was written.
#[derive(Debug)]
pub(crate) struct Resource<T> {
    pub(crate) id: ResourceId,
    pub(crate) spec: T,
    pub(crate) source: Source,
    /// Whether all that was written could be read. Of one that is not, nothing can be said of what refers to it.
    pub(crate) is_whole: bool,
}

/// What a kind of resources is to others.
pub(crate) trait Spec {
    /// The word for it.
    const KIND: &str;

    /// The namespaces beside its own whose resources may refer to it.
    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces>;
}

impl Spec for ApprovalSpec {
    const KIND: &str = "Approval";

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        None
    }
}

impl Spec for BoundarySpec {
    const KIND: &str = "Boundary";

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        None
    }
}

impl Spec for DestinationSpec {
    const KIND: &str = "Destination";

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        self.allowed_namespaces.as_ref()
    }
}

impl Spec for StoreSpec {
    const KIND: &str = "SecretStore";

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        self.allowed_namespaces.as_ref()
    }
}

impl Spec for CredentialSpec {
    const KIND: &str = "Credential";

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        self.allowed_namespaces.as_ref()
    }
}

impl Spec for GrantSpec {
    const KIND: &str = "Grant";

    /// Nothing refers to a grant.
    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        None
    }
}

impl Spec for SourcePoolSpec {
    const KIND: &str = "SourcePool";

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        self.allowed_namespaces.as_ref()
    }
}

impl Spec for BudgetSpec {
    const KIND: &str = "Budget";

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        self.allowed_namespaces.as_ref()
    }
}

/// What all kinds have in common.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["apiVersion", "kind", "metadata", "spec"]))]
struct ResourceDocument<T: Default> {
    /// The version of this form.
    api_version: Option<ApiVersion>,
    /// The kind of resource. Read before, to know what `T` is.
    #[serde(rename = "kind")]
    _kind: Option<Kind>,
    /// What the resource is known by.
    metadata: Option<Metadata>,
    /// What it says.
    spec: Option<T>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum ApiVersion {
    #[serde(rename = "tollgate.dev/v1alpha1")]
    V1Alpha1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum Kind {
    Destination,
    SecretStore,
    Credential,
    Grant,
    Approval,
    SourcePool,
    Budget,
    /// No resource: it is in a file of its own.
    #[schemars(skip)]
    Boundary,
}

/// All of them, as they are written.
const KINDS: [&str; 7] =
    ["Destination", "SecretStore", "Credential", "Grant", "Approval", "SourcePool", "Budget"];

/// What a resource is known by.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
struct Metadata {
    /// The namespace. Without it `default`.
    namespace: Option<Name>,
    /// The name, which no other resource of the kind has in the namespace.
    name: Option<Name>,
}

/// Of grants there may be thousands, and letting go of them takes milliseconds.
impl Drop for Model {
    fn drop(&mut self) {
        giving_way(std::mem::take(&mut self.grants)).for_each(drop);
    }
}

impl Model {
    /// Reads resource files: any number of YAML documents each.
    ///
    /// Gives every problem of every file: what is not YAML, keys that occur twice, unknown kinds and fields, values of the wrong type
    /// or form, names that occur twice. What one resource says of another is looked at by [`crate::compile::compile_files`].
    pub fn read(files: &[SourceFile]) -> Result<Self, Vec<Problem>> {
        let (model, problems) = Self::read_all(files);
        if problems.is_empty() { Ok(model) } else { Err(problems) }
    }

    /// A credential as it was written, whether or not it has problems.
    pub(crate) fn credential(&self, id: &ResourceId) -> Option<&Resource<CredentialSpec>> {
        self.credentials.get(*self.index.credentials.get(id)?)
    }

    /// A destination as it was written, whether or not it has problems.
    pub(crate) fn destination(&self, id: &ResourceId) -> Option<&Resource<DestinationSpec>> {
        self.destinations.get(*self.index.destinations.get(id)?)
    }

    /// Reads what can be read, and gives every problem with the rest.
    pub(crate) fn read_all(files: &[SourceFile]) -> (Self, Vec<Problem>) {
        let mut model = Self::default();
        let mut problems = Vec::new();
        for file in giving_way(files) {
            let documents = match file.is_object() {
                true => vec![json::read(&file.text)],
                false => yaml::read(&file.text, Fractions::Numbers),
            };
            for document in giving_way(documents) {
                model.add(&file.path, document, &mut problems);
            }
        }
        (model, problems)
    }

    fn add(&mut self, file: &Path, mut document: yaml::Document, problems: &mut Vec<Problem>) {
        let kind = document.value.get("kind").cloned();
        let mut source = Source::new(file, label(&document.value), std::mem::take(&mut document.lines));
        for fault in std::mem::take(&mut document.faults) {
            problems.push(source.problem_at(fault.line, &fault.path, fault.message));
        }
        if kind.as_ref().is_some_and(|kind| kind == "Grant" || kind == "Budget") {
            // What these do not say they do not forbid, so they say so by leaving it out and not by an empty word.
            let rules =
                std::mem::take(&mut document.nulls).into_iter().filter(|(path, _)| path.starts_with("spec."));
            problems.extend(rules.map(|(path, line)| {
                source.problem_at(line, &path, "this is empty: leave it out, or say what it is".to_owned())
            }));
        }
        if let (true, Some(members)) = (file.as_os_str().is_empty(), document.value.as_object_mut()) {
            if let Some(withheld) = members.remove("withheld") {
                problems.push(source.problem("withheld", withheld["because"].as_str().unwrap_or_default()));
            }
            let held = members.remove("heldHosts").and_then(|hosts| HashSet::deserialize(hosts).ok());
            source.hold_hosts(held.unwrap_or_default());
        }
        self.incomplete |= document.unreadable;
        if document.value.is_null() {
            return;
        }
        match kind.map(Kind::deserialize) {
            Some(Ok(Kind::Destination)) => {
                let into = (&mut self.destinations, &mut self.index.destinations);
                self.incomplete |= take(&document, source, into, problems).is_none();
            }
            Some(Ok(Kind::SecretStore)) => {
                let into = (&mut self.stores, &mut self.index.stores);
                self.incomplete |= take(&document, source, into, problems).is_none();
            }
            Some(Ok(Kind::Credential)) => {
                let into = (&mut self.credentials, &mut self.index.credentials);
                self.incomplete |= take(&document, source, into, problems).is_none();
            }
            Some(Ok(Kind::Grant)) => {
                let into = (&mut self.grants, &mut self.index.grants);
                self.incomplete |= take(&document, source, into, problems).is_none();
            }
            Some(Ok(Kind::Approval)) => {
                let into = (&mut self.approvals, &mut self.index.approvals);
                self.incomplete |= take(&document, source, into, problems).is_none();
            }
            Some(Ok(Kind::SourcePool)) => {
                let into = (&mut self.source_pools, &mut self.index.source_pools);
                self.incomplete |= take(&document, source, into, problems).is_none();
            }
            Some(Ok(Kind::Budget)) => {
                let into = (&mut self.budgets, &mut self.index.budgets);
                self.incomplete |= take(&document, source, into, problems).is_none();
            }
            Some(Ok(Kind::Boundary)) => {
                self.incomplete = true;
                let message = "a boundary is no resource: it stands in a file of its own, for `tollgate access diff --within`";
                problems.push(source.problem("kind", message));
            }
            other => {
                self.incomplete = true;
                let written = document.value.get("kind").and_then(Value::as_str);
                problems.push(source.problem("kind", no_kind(other.is_some(), written)));
            }
        }
    }
}

/// What problems call a document: kind, namespace and name, as far as they are written.
fn label(document: &Value) -> String {
    let written = |path: &str| document.pointer(path).and_then(Value::as_str);
    let namespace = written("/metadata/namespace").filter(|it| *it != ResourceId::DEFAULT_NAMESPACE);
    match (written("/kind"), written("/metadata/name"), namespace) {
        (Some(kind), Some(name), Some(namespace)) => format!("{kind}/{namespace}/{name}"),
        (Some(kind), Some(name), None) => format!("{kind}/{name}"),
        (Some(kind), None, _) => kind.to_owned(),
        (None, ..) => String::new(),
    }
}

/// Why a document is of no kind: whether one is written at all, and the word.
fn no_kind(is_written: bool, word: Option<&str>) -> String {
    let known = KINDS.join(", ");
    match (is_written, word) {
        (true, Some(word)) => {
            let guess = guess(word, KINDS.into_iter());
            format!("there is no such kind{guess} (known: {known})")
        }
        (true, None) => format!("a kind is one word (known: {known})"),
        (false, _) => format!("a resource needs a `kind` (known: {known})"),
    }
}

/// Reads a document of a known kind. `None`: it has no name to be known by.
fn take<T: serde::de::DeserializeOwned + Default>(
    document: &yaml::Document,
    mut source: Source,
    (into, index): (&mut Vec<Resource<T>>, &mut HashMap<ResourceId, usize>),
    problems: &mut Vec<Problem>,
) -> Option<()> {
    let before = problems.len();
    let written: ResourceDocument<T> = source::parse(document, &mut source, problems);
    let is_whole = problems.len() == before && !source.is_unreadable();
    if written.api_version.is_none() && !source.claims("apiVersion") {
        problems.push(source.problem("apiVersion", format!("this is required: `{API_VERSION}`")));
    }
    let Metadata { namespace, name } = written.metadata.unwrap_or_default();
    if name.is_none() && !source.claims("metadata.name") {
        problems.push(source.problem("metadata.name", "a resource needs a name"));
    }
    // One whose namespace cannot be read may be any of that name.
    if namespace.is_none() && source.claims("metadata.namespace") {
        return None;
    }
    let id = ResourceId::new(namespace.as_ref(), &name?);
    if let Some(first) = index.get(&id).and_then(|at| into.get(*at)) {
        let message = format!("this name is taken: {} has it already", first.source.place());
        problems.push(source.problem("metadata.name", message));
        return Some(());
    }
    if written.spec.is_none() && !source.claims("spec") {
        problems.push(source.problem("spec", "this is required"));
    }
    index.insert(id.clone(), into.len());
    into.push(Resource { id, spec: written.spec.unwrap_or_default(), source, is_whole });
    Some(())
}
