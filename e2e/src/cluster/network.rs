//! The way into a cluster's network from outside: ports of this machine's loopback that lead to addresses within it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// The network of a process, to be gone through from outside.
pub(super) fn network_of(process: i32) -> Result<File> {
    let path = format!("/proc/{process}/ns/net");
    File::open(&path).with_context(|| format!("cannot open {path}"))
}

/// Leads whatever connects to `listener` to an address within the network, until this process ends. Does not return
/// unless the listener fails.
pub(super) fn lead(listener: &TcpListener, network: &File, to: SocketAddr) -> Result<()> {
    // Of this thread only, and of those that it makes. The listener stays where it was made.
    setns(network.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot enter the cluster's network")?;
    loop {
        let (outside, _) = listener.accept()?;
        thread::spawn(move || {
            // Who connected sees the end of the connection.
            let _closed = join(&outside, to);
        });
    }
}

/// A free port of 127.0.0.1 that leads to an address within the network, as long as this process runs.
pub(super) fn leading_to(network: File, to: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || lead(&listener, &network, to));
    Ok(address)
}

fn join(outside: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let inside = TcpStream::connect(to)?;
    thread::scope(|scope| {
        scope.spawn(|| carry(outside, &inside));
        carry(&inside, outside)
    })
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let carried = io::copy(&mut from, &mut to);
    let _may_be_closed = to.shutdown(Shutdown::Write);
    carried.map(|_| ())
}
