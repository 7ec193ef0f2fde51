//! Stops a server that outlived the process that started it, as after `kill -9`.
//!
//! Only called while the data folder is locked: whatever still runs on that data has lost its owner.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Progress;

/// Each step is sent to the server's processes, and given this time to work, before the next. PostgreSQL takes the
/// first as "fast shutdown" and the second as "immediate shutdown", after which the next start recovers.
const STEPS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(20)),
    (Signal::SIGQUIT, Duration::from_secs(6)),
    (Signal::SIGKILL, Duration::from_secs(4)),
];

const POLL: Duration = Duration::from_millis(10);

/// Stops what runs on `data`, and removes a stale `postmaster.pid`.
pub(super) async fn stop(data: &Path, progress: Progress<'_>) -> Result<()> {
    let pid_file = data.join("postmaster.pid");
    if !pid_file.exists() {
        // PostgreSQL removes it last, so nothing of it is left.
        return Ok(());
    }
    let recorded = fs::read_to_string(&pid_file).ok().and_then(|text| postmaster(&text));
    if !servers_on(data, recorded).is_empty() {
        progress("stopping the PostgreSQL of an earlier run that was killed");
        stop_servers(data, recorded).await?;
    }
    // PostgreSQL itself refuses to start when the recorded process id belongs to any process at all, which after a
    // reboot or in a container it often does.
    match fs::remove_file(&pid_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", pid_file.display()))
        }
        _ => Ok(()),
    }
}

async fn stop_servers(data: &Path, recorded: Option<Pid>) -> Result<()> {
    for (signal, patience) in STEPS {
        let running = servers_on(data, recorded);
        // The postmaster stops its own children. Without it each of them must be told, and they take the same signal
        // for "cancel the query": tell them to end.
        match recorded.filter(|postmaster| running.contains(postmaster)) {
            Some(postmaster) if signal != Signal::SIGKILL => send(postmaster, signal)?,
            _ => {
                let signal = if signal == Signal::SIGINT {
                    Signal::SIGTERM
                } else {
                    signal
                };
                for process in running {
                    send(process, signal)?;
                }
            }
        }
        let sent = Instant::now();
        while sent.elapsed() < patience {
            if servers_on(data, recorded).is_empty() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    bail!(
        "a PostgreSQL of an earlier run does not stop (processes {:?} on {})",
        servers_on(data, recorded),
        data.display()
    );
}

/// Sends a signal; a process that has just ended is fine.
fn send(process: Pid, signal: Signal) -> Result<()> {
    match kill(process, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot stop process {process}, the PostgreSQL of an earlier run"))
        }
    }
}

/// The first line of `postmaster.pid`. Negative for a stand-alone backend, which `initdb` uses.
fn postmaster(pid_file: &str) -> Option<Pid> {
    let number: i32 = pid_file.lines().next()?.trim().parse().ok()?;
    Some(Pid::from_raw(number.checked_abs()?))
}

/// The PostgreSQL processes that work on `data`: all of them have it as their working folder. So a process id that
/// was given to another program since is never mistaken for a server.
#[cfg(target_os = "linux")]
fn servers_on(data: &Path, _recorded: Option<Pid>) -> Vec<Pid> {
    let is_server = |process: &Path| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        name.starts_with("postgres") && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data)
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_server(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Without `/proc` only the recorded postmaster is known; it was started with the data folder in its command line.
#[cfg(not(target_os = "linux"))]
fn servers_on(data: &Path, recorded: Option<Pid>) -> Vec<Pid> {
    let is_server = |process: &Pid| {
        std::process::Command::new("ps")
            .args(["-o", "command=", "-p"])
            .arg(process.to_string())
            .output()
            .is_ok_and(|output| {
                let command = String::from_utf8_lossy(&output.stdout);
                command.contains("postgres") && command.contains(&*data.to_string_lossy())
            })
    };
    recorded.into_iter().filter(is_server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_postmaster() {
        assert_eq!(postmaster("4711\n/data\n173"), Some(Pid::from_raw(4711)));
        assert_eq!(postmaster("-4711\n/data\n"), Some(Pid::from_raw(4711)));
        assert_eq!(postmaster(""), None);
    }
}
