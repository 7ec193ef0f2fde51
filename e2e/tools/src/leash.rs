//! Sees to it that no process outlives the one that owns it, also when that one is killed.
//!
//! A shell with nothing to do but to read: it is told of each process group that begins and ends, and when the pipe
//! ends, however its owner did, it kills those that are left, and removes the folder that they worked in if it was
//! told to.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// `+ ID` is a group that began, `- ID` one that ended.
const WATCH: &str = r#"
groups=
while read -r sign group; do
  rest=
  for one in $groups; do [ "$one" = "$group" ] || rest="$rest $one"; done
  groups=$rest
  [ "$sign" = + ] && groups="$groups $group"
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
[ -n "$1" ] || exit 0
# What is dying may still write.
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1" 2>/dev/null && break; sleep 0.1; done
exit 0
"#;

/// The watching shell.
#[derive(Debug)]
pub struct Leash {
    shell: Child,
}

impl Leash {
    /// Begins to watch over nothing.
    pub fn new() -> Result<Self> {
        Self::spawn(OsStr::new(""))
    }

    /// Also removes this folder in the end.
    pub fn with_folder(folder: &Path) -> Result<Self> {
        Self::spawn(folder.as_os_str())
    }

    fn spawn(folder: &OsStr) -> Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", WATCH, "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of Ctrl-C, which ends its owner.
            .process_group(0)
            .spawn()
            .context("cannot run /bin/sh")?;
        Ok(Self { shell })
    }

    /// The process leads a group of its own.
    pub fn began(&mut self, process: u32) -> Result<()> {
        self.tell('+', process)
    }

    /// The group's leader was waited for, and nothing of the group is left.
    pub fn ended(&mut self, process: u32) -> Result<()> {
        self.tell('-', process)
    }

    fn tell(&mut self, sign: char, process: u32) -> Result<()> {
        let pipe = self.shell.stdin.as_mut().context("its input is piped")?;
        writeln!(pipe, "{sign} {process}").context("the shell that watches is gone")
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _reaped = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::signal::Signal;

    use super::*;

    fn sleeper() -> Result<Child> {
        Ok(Command::new("sleep").arg("60").process_group(0).spawn()?)
    }

    #[test]
    fn what_still_runs_when_the_owner_is_gone_is_killed_and_nothing_else() -> Result<()> {
        let mut leash = Leash::new()?;
        let (mut left, mut done) = (sleeper()?, sleeper()?);
        leash.began(left.id())?;
        leash.began(done.id())?;
        leash.ended(done.id())?;
        drop(leash);
        assert_eq!(left.wait()?.signal(), Some(Signal::SIGKILL as i32));
        assert!(done.try_wait()?.is_none(), "a group that had ended was killed");
        done.kill()?;
        done.wait()?;
        Ok(())
    }

    #[test]
    fn a_folder_goes_with_its_owner() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let folder = parent.path().join("it's a folder");
        std::fs::create_dir_all(folder.join("data"))?;
        drop(Leash::with_folder(&folder)?);
        assert!(!folder.exists() && parent.path().exists());
        Ok(())
    }
}
