//! The gateway's own SVIDs, as a store of secrets: each is made anew when it is asked for, and used no longer than it lasts.
//!
//! **Invariant:** a token is for the audience that the store's definition names, and for no other.

use jiff::Timestamp;
use tokio::time::Instant;
use tollgate_policy::policy::Svid;
use zeroize::Zeroizing;

use super::Fetched;
use crate::error::Failure;
use crate::reference::Reference;
use crate::svid::{SvidSource, X509Svid};
use crate::value::{Field, Value};

pub(super) struct SvidStore {
    audience: Option<String>,
    svids: SvidSource,
}

impl SvidStore {
    pub(super) const fn new(audience: Option<String>, svids: SvidSource) -> Self {
        Self { audience, svids }
    }

    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let svids = self.svids.svids()?;
        let (value, ends) = match Svid::at(&reference.secret.path) {
            Some(Svid::Jwt) => {
                let without = Failure::PathRefused("the store has no audience for JWT-SVIDs");
                let svid = svids.jwt(self.audience.clone().ok_or(without)?).await?;
                (svid.token.into(), svid.ends)
            }
            Some(Svid::X509) => {
                let svid = svids.x509().await?;
                let ends = svid.ends;
                (certificate(&svid, &reference.secret.fields)?, ends)
            }
            None => return Err(Failure::PathRefused("it is neither `jwt` nor `x509`")),
        };
        Ok(Fetched { value, version: None, lease: None, expires: Some(at(ends)) })
    }
}

/// The named fields, in that order.
fn certificate(svid: &X509Svid, fields: &[String]) -> Result<Value, Failure> {
    let [certificate, key] = Svid::FIELDS;
    let field = |name: &String| -> Result<Field, Failure> {
        let bytes = match name.as_str() {
            name if name == certificate => Zeroizing::new(svid.chain.clone()),
            name if name == key => svid.key.clone(),
            _ => return Err(Failure::FieldMissing),
        };
        Ok((name.as_str().into(), bytes))
    };
    match fields {
        [] => Err(Failure::FieldMissing),
        fields => fields.iter().map(field).collect::<Result<_, _>>().map(Value::of),
    }
}

/// By the clock that does not jump; what has ended ends now.
fn at(ends: Timestamp) -> Instant {
    Instant::now() + ends.duration_since(Timestamp::now()).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tollgate_policy::policy::StoreKind;

    use super::*;
    use crate::reference::tests::reference_to;
    use crate::svid::{JwtSvid, Making, OwnSvids};

    struct Made(Duration);

    impl OwnSvids for Made {
        fn jwt(&self, audience: String) -> Making<JwtSvid> {
            let svid =
                JwtSvid { token: Zeroizing::new(audience.into_bytes()), ends: Timestamp::now() + self.0 };
            Box::pin(async { Ok(svid) })
        }

        fn x509(&self) -> Making<X509Svid> {
            let (chain, key) = (b"chain".to_vec(), Zeroizing::new(b"key".to_vec()));
            let svid = X509Svid { chain, key, ends: Timestamp::now() + self.0 };
            Box::pin(async { Ok(svid) })
        }
    }

    async fn fetched(
        audience: Option<&str>,
        path: &str,
        fields: &[&str],
        life: u64,
    ) -> Result<(Vec<String>, Duration), Failure> {
        let source = SvidSource::default();
        source.reach(Arc::new(Made(Duration::from_secs(life))));
        let audience = audience.map(str::to_owned);
        let mut reference = reference_to(StoreKind::Svid { audience: audience.clone() }, path, None);
        reference.secret.fields = fields.iter().map(|field| (*field).to_owned()).collect();
        let fetched = SvidStore::new(audience, source).fetch(&reference).await?;
        let left = fetched.expires.unwrap().saturating_duration_since(Instant::now());
        Ok((fetched.value.texts(), left))
    }

    #[tokio::test]
    async fn a_token_is_for_the_stores_own_audience_and_ends_with_itself() {
        let (texts, left) = fetched(Some("api://exchange"), "jwt", &[], 300).await.unwrap();
        assert_eq!(texts, ["api://exchange"]);
        assert!(left > Duration::from_secs(290) && left <= Duration::from_secs(300), "{left:?}");
        let (_, left) = fetched(Some("api://exchange"), "jwt", &[], 0).await.unwrap();
        assert_eq!(left, Duration::ZERO);
        assert!(matches!(fetched(None, "jwt", &[], 300).await, Err(Failure::PathRefused(_))));
    }

    #[tokio::test]
    async fn a_certificate_has_the_fields_that_are_named_in_their_order() {
        let (texts, _) = fetched(None, "x509", &["key", "certificate"], 300).await.unwrap();
        assert_eq!(texts, ["key", "chain"]);
        assert_eq!(fetched(None, "x509", &[], 300).await.err(), Some(Failure::FieldMissing));
        assert_eq!(fetched(None, "x509", &["bundle"], 300).await.err(), Some(Failure::FieldMissing));
        assert!(matches!(fetched(Some("a"), "other", &[], 300).await, Err(Failure::PathRefused(_))));
    }

    #[tokio::test]
    async fn a_gateway_without_an_identity_says_so() {
        let reference = reference_to(StoreKind::Svid { audience: None }, "x509", Some("key"));
        let fetched = SvidStore::new(None, SvidSource::default()).fetch(&reference).await;
        assert!(matches!(fetched.err(), Some(Failure::Misconfigured(_))));
    }
}
