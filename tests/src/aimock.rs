//! aimock: OpenAI's and Anthropic's APIs, with usage, streams, and a 401 for any key but the real one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Process, free_port, local};
use crate::provider::{ANTHROPIC_MODEL, OPENAI_MODEL};
use crate::sandbox::{Sandbox, parts_dir};

/// Tokens that every OpenAI answer reports: prompt, completion.
pub const OPENAI_USAGE: (u64, u64) = (21, 13);

/// Tokens that every Anthropic answer reports: input, output.
pub const ANTHROPIC_USAGE: (u64, u64) = (34, 8);

/// What every answer says.
pub const TEXT: &str = "The toll is paid, the road is yours, and nobody saw the key.";

/// A running aimock; it ends when dropped.
pub struct Aimock {
    address: SocketAddr,
    key: String,
    _process: Process,
}

impl Aimock {
    /// Whether aimock is installed.
    pub fn installed() -> bool {
        binary().exists()
    }

    /// Starts it with one key, which `AIMOCK_API_KEYS` may name several of, separated by commas.
    pub async fn start(sandbox: &Sandbox, keys: &[&str]) -> Self {
        let address = local(free_port());
        let fixtures = sandbox.input(&format!("aimock-{}.json", address.port()), fixtures().to_string());
        let mut command = Command::new("node");
        command.arg(binary()).args(["-p", &address.port().to_string(), "-h", "127.0.0.1", "-l", "3"]);
        command.args(["--journal-max", "0", "--log-level", "warn", "-f"]).arg(fixtures);
        command.env("AIMOCK_API_KEYS", keys.join(","));
        let mut process =
            Process::spawn(&format!("aimock-{}", address.port()), &sandbox.providers(), &mut command);
        process.listening(address).await;
        Self { address, key: keys[0].to_owned(), _process: process }
    }

    /// Where it listens, in plain HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What reached it with a valid key, oldest first.
    pub fn journal(&self) -> Vec<Value> {
        let (_, body) = self.get("/__aimock/journal", &self.key);
        let journal: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        let entries = journal.as_array().or_else(|| journal["entries"].as_array());
        entries.cloned().unwrap_or_else(|| panic!("no journal: {body}"))
    }

    /// GET with a bearer token: status and body.
    pub fn get(&self, path: &str, key: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("aimock");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let head =
            format!("GET {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).expect("request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
    }
}

fn binary() -> PathBuf {
    parts_dir().join("npm/node_modules/.bin/llmock")
}

fn fixtures() -> Value {
    let (prompt, completion) = OPENAI_USAGE;
    let (input, output) = ANTHROPIC_USAGE;
    json!({"fixtures": [
        {"match": {"model": OPENAI_MODEL},
         "response": {"content": TEXT, "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}}},
        {"match": {"model": ANTHROPIC_MODEL},
         "response": {"content": TEXT, "usage": {"input_tokens": input, "output_tokens": output}}},
    ]})
}
