//! Values of settings that are written in a form of their own.
//!
//! **Invariant:** what is refused is shown as it was written, with the form that would be right.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tollgate_policy::model::Interval;

const UNITS: [(&str, usize); 9] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// What was written, as text.
pub(super) fn written<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    match Value::deserialize(value)? {
        Value::String(text) => Ok(text),
        Value::Null => Err(D::Error::invalid_type(Unexpected::Unit, &"a value")),
        other => Ok(other.to_string()),
    }
}

pub(super) fn refuse<E: Error>(text: &str, form: impl Display) -> E {
    let shown: String = text.chars().take(80).collect();
    E::custom(format!("`{shown}`: {form}"))
}

pub(super) fn address<'de, D: Deserializer<'de>>(value: D) -> Result<SocketAddr, D::Error> {
    let text = written(value)?;
    text.parse().map_err(|_| refuse(&text, "an address is IP:port, as in 0.0.0.0:8443"))
}

pub(super) fn ranges<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<IpNet>, D::Error> {
    Vec::deserialize(value).map(|ranges: Vec<Range>| ranges.into_iter().map(|Range(range)| range).collect())
}

struct Range(IpNet);

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = written(value)?;
        let form = || match text.parse() {
            Ok(IpAddr::V4(address)) => format!("write a prefix, as in {address}/32"),
            Ok(IpAddr::V6(address)) => format!("write a prefix, as in {address}/128"),
            Err(_) => "write an address and the length of its prefix, as in 10.0.0.0/8".to_owned(),
        };
        text.parse().map(Self).map_err(|_| refuse(&text, form()))
    }
}

pub(super) fn servers<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<SocketAddr>, D::Error> {
    Vec::deserialize(value)
        .map(|servers: Vec<Server>| servers.into_iter().map(|Server(server)| server).collect())
}

struct Server(SocketAddr);

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = written(value)?;
        let bare = || text.parse().map(|address: IpAddr| SocketAddr::new(address, 53));
        let form =
            "write the address of a DNS server, as in 10.0.0.53, or with its port as in 127.0.0.1:5353";
        text.parse().or_else(|_| bare()).map(Self).map_err(|_| refuse(&text, form))
    }
}

/// A length of time that may be nothing.
pub(crate) fn pause<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    let text = written(value)?;
    if ["0ms", "0s", "0m", "0h", "0d"].contains(&text.as_str()) {
        return Ok(Duration::ZERO);
    }
    let form = "write a length of time with its unit, as in 500ms, 3s or 2m";
    text.parse().map(|Interval(time)| time).map_err(|_| refuse(&text, form))
}

pub(super) fn some_bytes<'de, D: Deserializer<'de>>(value: D) -> Result<Option<usize>, D::Error> {
    bytes(value).map(Some)
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(value: D) -> Result<usize, D::Error> {
    let text = written(value)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, bytes)| *bytes);
    let bytes = number.parse::<usize>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| refuse(&text, "write bytes as a whole number, or with a unit as in 32 MiB or 1 MB"))
}
