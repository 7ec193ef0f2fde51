//! What the kernel says about a process: proc(5).

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// A process rests when it has used less than this of a core for [`QUIET_FOR`].
const QUIET: f64 = 0.02;
const QUIET_FOR: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_mins(5);
/// In which `stat` counts time on every Linux: `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is resident, in MiB, the program's own pages included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now: f64,
    /// Of that, what is no file's: the heap and the stacks.
    pub(crate) heap: f64,
    /// The most that it ever was.
    pub(crate) peak: f64,
}

pub(crate) fn memory(id: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .with_context(|| format!("the process has no {name}"))?
            .parse()?;
        anyhow::Ok(kibibytes / 1024.0)
    };
    Ok(Memory {
        now: mebibytes("VmRSS:")?,
        heap: mebibytes("RssAnon:")?,
        peak: mebibytes("VmHWM:")?,
    })
}

/// Seconds of processor that it has used.
pub(crate) fn processor_time(id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("an unknown form of stat")?;
    let times = fields.split(' ').skip(11).take(2);
    let ticks: f64 = times.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// Waits until it has nothing left to do.
pub(crate) async fn rest(id: u32) -> Result<()> {
    let began = Instant::now();
    loop {
        let before = processor_time(id)?;
        tokio::time::sleep(QUIET_FOR).await;
        if processor_time(id)? - before < QUIET * QUIET_FOR.as_secs_f64() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!("it works on and on");
        }
        ensure!(fs::exists(format!("/proc/{id}"))?, "it has ended");
    }
}
