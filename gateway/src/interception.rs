//! Certificates for the hosts of destinations, made by an authority of the operator's: with one of them the gateway ends the TLS of a
//! program that has asked it, as its proxy, for a tunnel.
//!
//! **Invariant:** a certificate is made for a host pattern of a destination, never for a name that a caller has made up, and only once a
//! caller was admitted who may have something to ask there. It lives for a day at most, and no longer than its authority. Its own key
//! never leaves the process.

mod authority;
mod constraints;
mod files;
mod leaves;
mod mint;

pub(crate) use self::files::CaFiles;
pub use self::files::InterceptionSettings;
pub(crate) use self::mint::Interception;

#[cfg(test)]
mod tests;
