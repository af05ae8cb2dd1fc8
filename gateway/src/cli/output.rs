//! What all commands that list something have in common.

use std::io::{self, BufWriter, Write};

use anyhow::Context;

/// Lets `write` write `what` to standard output.
pub(super) fn print(
    what: &str,
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.with_context(|| format!("writing {what}")),
    }
}

/// Writes a value as indented JSON, and ends the line.
pub(super) fn json(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}
