//! Where the value of one slot comes from: what a store holds, or what a token endpoint makes of that.
//!
//! **Invariant:** what fails is noted with whoever failed: the store, or the token endpoint.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::mint::Issuer;
use crate::observe::{Event, Observer, What};
use crate::read::FileStamp;
use crate::reference::Reference;
use crate::refusals::Refusals;
use crate::secret::{Fits, VersionKey};
use crate::store::{Fetched, Shift, Store};

/// Neither a store nor a token endpoint takes longer to answer, logins included.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long what a token endpoint refused rests: what is wrong may be mended there.
const REST: Duration = Duration::from_secs(240);

pub(crate) struct Origin {
    pub(crate) store: Arc<Store>,
    pub(crate) mint: Option<Maker>,
    pub(crate) observer: Observer,
    /// Whether what came can be used.
    pub(crate) fits: Fits,
    /// Names contents.
    pub(crate) versions: VersionKey,
}

/// Whoever makes a value of the stored one.
pub(crate) struct Maker {
    pub(crate) issuer: Arc<Issuer>,
    /// The store of the client's own secret, where the mint takes one beside the stored value.
    pub(crate) client_store: Option<Arc<Store>>,
    /// Stored values that the token endpoint refused.
    pub(crate) refusals: Refusals,
    /// What it said of the last refusal, if that may be told.
    pub(crate) said: Mutex<Option<Arc<str>>>,
}

impl Origin {
    /// Has to run on a tokio runtime with time and network.
    pub(crate) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let stored = self.read(&self.store, reference).await?;
        let (Some(maker), Some(minting)) = (&self.mint, &reference.mint) else { return Ok(stored) };
        let client = match (&maker.client_store, &minting.client) {
            (Some(store), Some(client)) => Some(only(self.read(store, client).await?)?),
            _ => None,
        };
        let client = client.as_deref().map(Vec::as_slice);
        let shown: Vec<&[u8]> = stored.value.values().chain(client).collect();
        let input = maker.refusals.input(&shown);
        if let Some(failure) = maker.refusals.barred(input) {
            return Err(failure);
        }
        let minted = maker.issuer.mint(&minting.mint, &stored.value, client);
        let minted = time::timeout(ANSWER_LIMIT, minted).await.unwrap_or_else(|_| {
            maker.issuer.note(Some(Failure::Timeout));
            Err(Failure::Timeout.into())
        });
        let said = minted.as_ref().err().and_then(|refused| refused.said.clone());
        *maker.said.lock().unwrap_or_else(PoisonError::into_inner) = said;
        let minted = minted.map_err(|refused| refused.failure);
        match minted {
            Err(failure @ Failure::MintRefused(_)) => maker.refusals.refused(input, failure, REST),
            _ => maker.refusals.taken(input),
        }
        minted
    }

    /// What the token endpoint said of its refusal.
    pub(crate) fn said(&self) -> Option<Arc<str>> {
        self.mint.as_ref()?.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of the files that it is made of, as far as it is; `None` where it is of none.
    pub(crate) async fn stamp(&self, reference: &Reference) -> Option<FileStamp> {
        let own = self.store.stamp(reference).await;
        let client = self.mint.as_ref().and_then(|maker| maker.client_store.as_ref());
        let client = match client.zip(reference.mint.as_ref().and_then(|minting| minting.client.as_ref())) {
            Some((store, client)) => store.stamp(client).await,
            None => None,
        };
        match (own, client) {
            (None, None) => None,
            (own, client) => Some(own.into_iter().chain(client).flatten().collect()),
        }
    }

    /// Ready when what is stored is another value than was last read, where its store tells. Elsewhere never.
    pub(crate) async fn changed(&self, reference: &Reference) {
        self.store.changed(reference).await;
    }

    /// Somebody says that what was refused may be shown again.
    pub(crate) fn open(&self) {
        self.store.open();
        if let Some(maker) = &self.mint {
            maker.client_store.iter().for_each(|store| store.open());
            maker.refusals.open();
        }
    }

    async fn read(&self, store: &Store, reference: &Reference) -> Result<Fetched, Failure> {
        let fetched =
            time::timeout(ANSWER_LIMIT, store.fetch(reference)).await.unwrap_or(Err(Failure::Timeout));
        let what = match store.note(fetched.as_ref().err().copied()) {
            None => return fetched,
            Some(Shift::Fails(failure)) => What::Unavailable { ended: None, failure },
            Some(Shift::Works) => What::Recovered,
        };
        let store = reference.store.name.clone();
        self.observer.tell(Event {
            store,
            secret: None,
            credentials: Arc::default(),
            aliases: Arc::default(),
            what,
        });
        fetched
    }
}

/// A client's own secret is one field, which a policy sees to.
fn only(stored: Fetched) -> Result<Zeroizing<Vec<u8>>, Failure> {
    stored.value.only().ok_or(Failure::Internal)
}
