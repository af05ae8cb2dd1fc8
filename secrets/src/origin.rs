//! Where the value of one slot comes from: what a store holds, or what a token endpoint makes of that.
//!
//! **Invariant:** what fails is noted with whoever failed: the store, or the token endpoint.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::mint::Issuer;
use crate::observe::{Event, Observer, What};
use crate::reference::Reference;
use crate::secret::Fits;
use crate::store::{Fetched, Shift, Store};

/// Neither a store nor a token endpoint takes longer to answer, logins included.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

pub(crate) struct Origin {
    pub(crate) store: Arc<Store>,
    pub(crate) mint: Option<Maker>,
    pub(crate) observer: Observer,
    /// Whether what came can be used.
    pub(crate) fits: Fits,
}

/// Whoever makes a value of the stored one.
pub(crate) struct Maker {
    pub(crate) issuer: Arc<Issuer>,
    /// The store of the client's own secret, where the mint takes one beside the stored value.
    pub(crate) client_store: Option<Arc<Store>>,
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
        let minted = maker.issuer.mint(&minting.mint, &stored.value, client.as_deref().map(Vec::as_slice));
        time::timeout(ANSWER_LIMIT, minted).await.unwrap_or_else(|_| {
            maker.issuer.note(Some(Failure::Timeout));
            Err(Failure::Timeout)
        })
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
