//! The sockets of a listener: one for each core, and of nobody else.
//!
//! **Invariant:** who serves an address has listened on it alone: the first socket binds and listens without `SO_REUSEPORT`, which the
//! system grants to one process at most, and lets the other cores' sockets in only then (socket(7), `inet_csk_get_port`). What a process
//! leaves behind when it is killed keeps nobody out (`SO_REUSEADDR`).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use crate::upstream::KEEPALIVE;

pub(super) const BACKLOG: i32 = 4096;
/// `TCP_LISTEN` in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// As many sockets as there are cores, all on `address`, or on the port that the first one got.
///
/// # Errors
/// Where others listen there, with the process if it can be seen.
pub(crate) fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<TcpListener>> {
    let first = open(address, false).map_err(|error| by_whom(address, error))?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    if cores > 1 {
        first.set_reuse_port(true)?;
    }
    let mut sockets = vec![first.into()];
    for _ in 1..cores {
        sockets.push(open(address, true)?.into());
    }
    Ok(sockets)
}

fn open(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    // What is accepted inherits it: a caller may wait for minutes behind a load balancer that forgets silent connections.
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The same error, with the process that listens on `address`, where that is the reason and the process may be looked at.
pub(crate) fn by_whom(address: SocketAddr, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let who = holder(address).unwrap_or_else(|| "another process".to_owned());
    io::Error::new(io::ErrorKind::AddrInUse, format!("the address is in use by {who}"))
}

/// The process with a socket that listens where `address` would.
fn holder(address: SocketAddr) -> Option<String> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(fs::read_to_string);
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    let inodes = lines.filter_map(|line| listening(line, address));
    let sockets: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    let is_socket = |link: &Path| {
        fs::read_link(link)
            .is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Of other users' processes nothing is to be seen.
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        if open.flatten().any(|link| is_socket(&link.path())) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", command.trim_end()));
        }
    }
    None
}

/// The inode of a line of `/proc/net/tcp` whose socket listens on the port of `address`, and on its IP or all of them (proc_net_tcp).
fn listening(line: &str, address: SocketAddr) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
    let (ip, port) = local.split_once(':')?;
    let (ip, port) = (ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
    let overlaps = ip.is_unspecified() || address.ip().is_unspecified() || ip == address.ip().to_canonical();
    (state == LISTENS && port == address.port() && overlaps).then_some(inode)
}

/// Words of 32 bits, each in the order of this machine.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?];
    let bytes: [u8; 16] = words.concat().try_into().ok()?;
    Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn an_address_has_one_set_of_sockets_at_a_time() {
        let first = bind(anywhere(), 4).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first.len(), 4);
        for (cores, taken) in
            [(1, address), (4, address), (4, SocketAddr::from(([0, 0, 0, 0], address.port())))]
        {
            let refused = bind(taken, cores).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
            let own = format!("process {} (", std::process::id());
            assert!(refused.to_string().contains(&own), "{refused}");
        }
        drop(first);
        bind(address, 4).unwrap();
    }

    #[test]
    fn every_socket_of_an_address_gets_connections() {
        let sockets = bind(anywhere(), 2).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let calls: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let accepted = |socket: &TcpListener| std::iter::from_fn(|| socket.accept().ok()).count();
        let counts: Vec<usize> = sockets.iter().map(accepted).collect();
        assert_eq!(counts.iter().sum::<usize>(), calls.len());
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }

    #[test]
    fn of_all_who_start_at_once_one_serves_at_most() {
        let free = bind(anywhere(), 1).unwrap().remove(0).local_addr().unwrap();
        for _ in 0..50 {
            let gate = std::sync::Barrier::new(4);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let start = || {
                    gate.wait();
                    bind(free, 3)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(bound.iter().filter(|bound| bound.is_ok()).count() <= 1);
        }
    }

    #[test]
    fn a_line_of_the_systems_table_tells_who_listens_where() {
        let v4 = "   0: 0100007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        let v6 = v4.replace("0100007F:", "00000000000000000000000000000000:").replace("4711", "4712");
        let inode = |line: &str, address: &str| listening(line, address.parse().unwrap()).map(str::to_owned);
        assert_eq!(inode(v4, "127.0.0.1:8443").as_deref(), Some("4711"));
        assert_eq!(inode(v4, "0.0.0.0:8443").as_deref(), Some("4711"));
        assert_eq!(inode(v4, "127.0.0.2:8443"), None);
        assert_eq!(inode(v4, "127.0.0.1:8444"), None);
        assert_eq!(inode(&v4.replace(" 0A ", " 01 "), "127.0.0.1:8443"), None);
        assert_eq!(inode(&v6, "127.0.0.1:8443").as_deref(), Some("4712"));
        assert_eq!(inode("  sl  local_address rem_address   st", "127.0.0.1:8443"), None);
    }
}
