//! What the SDK sends goes through here, to whatever service it is for.
//!
//! **Invariant:** an address is dialled only if it may be, or if it is one of the metadata services that AWS gives a
//! machine or a container its identity by, and it is a login that is asked for. Plain HTTP goes to those and to
//! loopback. No redirect is followed, no proxy variable is read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use bytes::Bytes;
use reqwest::Url;
use tokio::time;
use zeroize::Zeroizing;

use crate::dial::Dialable;
use crate::error::Failure;
use crate::http::{classify, literal, receive};

/// The instance's (IMDS), ECS's and EKS's: link-local by design, and where a cloud identity comes from. Everybody else
/// is kept from them; the SDK alone asks them, for nothing but the login.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// What a connector is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The store itself.
    Secrets,
    /// Where the login comes from.
    Logins,
}

#[derive(Clone)]
pub(super) struct Connector {
    http: reqwest::Client,
    dialable: Dialable,
    reach: Purpose,
    /// How long the SDK waits for an answer, where that is shorter than the client's own time.
    limit: Option<Duration>,
}

impl Connector {
    pub(super) const fn new(http: reqwest::Client, dialable: Dialable, reach: Purpose) -> Self {
        Self { http, dialable, reach, limit: None }
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let url = Url::parse(request.uri()).map_err(|_| Failure::Misconfigured("an endpoint is no URL"))?;
        check(&url, self.reach, &self.dialable)?;
        let (parts, body) = request.try_into_http1x().map_err(|_| Failure::Internal)?.into_parts();
        // A login may be in it.
        let body = Zeroizing::new(body.bytes().ok_or(Failure::Internal)?.to_vec());
        let request =
            self.http.request(parts.method, url).headers(parts.headers).body(Bytes::from_owner(body));
        let answer = request.send().await.map_err(|error| classify(&error))?;
        let answer = receive(answer).await.map_err(|error| classify(&error))??;
        let status = answer.status.try_into().map_err(|_| Failure::Status(answer.status))?;
        let mut response = HttpResponse::new(status, Bytes::from_owner(answer.body).into());
        for (name, value) in &answer.headers {
            if let Ok(value) = value.to_str() {
                let _ = response.headers_mut().try_append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limit = settings
            .read_timeout()
            .map(|read| read.saturating_add(settings.connect_timeout().unwrap_or_default()));
        SharedHttpConnector::new(Self { limit, ..self.clone() })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            let sent = this.send(request);
            let answer = match this.limit {
                Some(limit) => time::timeout(limit, sent).await.unwrap_or(Err(Failure::Timeout)),
                None => sent.await,
            };
            answer.map_err(|failure| match failure {
                Failure::Timeout => ConnectorError::timeout(failure.into()),
                Failure::Unreachable(_) => ConnectorError::io(failure.into()),
                // Another attempt would end the same.
                _ => ConnectorError::user(failure.into()),
            })
        })
    }
}

fn check(url: &Url, reach: Purpose, dialable: &Dialable) -> Result<(), Failure> {
    let address = literal(url);
    let is_metadata = reach == Purpose::Logins
        && (url.scheme(), url.port_or_known_default()) == ("http", Some(80))
        && address.is_some_and(|address| METADATA.contains(&address));
    if is_metadata {
        return Ok(());
    }
    // A name is checked by the resolver, after it was resolved.
    if address.is_some_and(|address| !dialable(address)) {
        return Err(Failure::AddressRefused);
    }
    let is_loopback =
        url.host_str() == Some("localhost") || address.is_some_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback => Ok(()),
        _ => Err(Failure::Misconfigured("an AWS endpoint is https; http is only for a loopback address")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn checked(url: &str, reach: Purpose, dialable: bool) -> Result<(), Failure> {
        let dialable: Dialable = Arc::new(move |_| dialable);
        check(&Url::parse(url).unwrap(), reach, &dialable)
    }

    #[test]
    fn a_metadata_service_is_asked_for_the_login_and_for_nothing_else() {
        for host in
            ["169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "[fd00:ec2::23]"]
        {
            assert_eq!(checked(&format!("http://{host}/x"), Purpose::Logins, false), Ok(()), "{host}");
            for (scheme, port, reach) in [
                ("http", ":80", Purpose::Secrets),
                ("https", "", Purpose::Logins),
                ("http", ":81", Purpose::Logins),
            ] {
                let url = format!("{scheme}://{host}{port}/x");
                assert_eq!(checked(&url, reach, false), Err(Failure::AddressRefused), "{url}");
            }
        }
        assert_eq!(checked("http://169.254.169.253/", Purpose::Logins, false), Err(Failure::AddressRefused));
    }

    #[test]
    fn addresses_are_judged_and_http_stays_on_the_machine() {
        for reach in [Purpose::Secrets, Purpose::Logins] {
            assert_eq!(checked("https://10.0.0.1/", reach, false), Err(Failure::AddressRefused));
            assert_eq!(checked("http://127.0.0.1:5000/", reach, false), Err(Failure::AddressRefused));
            assert_eq!(checked("http://127.0.0.1:5000/", reach, true), Ok(()));
            assert_eq!(checked("https://sts.eu-central-1.amazonaws.com/", reach, true), Ok(()));
            for url in ["http://10.0.0.1/", "http://sts.amazonaws.com/", "ftp://127.0.0.1/"] {
                assert!(matches!(checked(url, reach, true), Err(Failure::Misconfigured(_))), "{url}");
            }
        }
    }
}
