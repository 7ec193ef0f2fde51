//! The programs of others that the stack runs: Dapr, Kafka, Redis. Found, or made once and kept in the user's cache.
//!
//! What is pinned is in `e2e/tools/`: Dapr is built from its Go modules, Kafka's jars come from Maven Central. Redis,
//! and the Java that runs Kafka, are this machine's own; what is missing is installed when that is possible, else one
//! line says what to install. Each can be somebody's own instead: [`DAPRD`], [`DAPR_SCHEDULER`], [`KAFKA_LIBS`],
//! [`REDIS_SERVER`] name it.
//!
//! How a tool is made: its pins and its recipe are hashed, and the hash is in the name of the folder that it is kept
//! in. A folder that is there is complete: it was filled under another name and renamed, by one process at a time.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;
use sha2::{Digest, Sha256};

/// The variable that names a `daprd` to run.
pub const DAPRD: &str = "TODO_DAPRD";
/// The variable that names Dapr's `scheduler`.
pub const DAPR_SCHEDULER: &str = "TODO_DAPR_SCHEDULER";
/// The variable that names a folder of Kafka's jars.
pub const KAFKA_LIBS: &str = "TODO_KAFKA_LIBS";
/// The variable that names a `redis-server`.
pub const REDIS_SERVER: &str = "TODO_REDIS_SERVER";

/// The first Go that gets the version which a go.mod asks for by itself.
const GO_THAT_FETCHES: (u32, u32) = (1, 21);
/// What Kafka 4's broker runs on.
const OLDEST_JAVA: u32 = 17;
/// How often a long build says that it lives.
const REPORT_EVERY: Duration = Duration::from_secs(15);
/// How much of a failed build's output is shown.
const LAST_LINES: usize = 30;

/// Dapr's programs.
#[derive(Clone, Debug)]
pub struct Dapr {
    /// The sidecar.
    pub daprd: PathBuf,
    /// The control plane's part that keeps jobs.
    pub scheduler: PathBuf,
}

/// What runs Kafka.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// A Java runtime.
    pub java: PathBuf,
    /// The folder of the jars: all of them are the class path.
    pub libs: PathBuf,
}

/// Every tool as a variable and what it should hold, made ready before it is returned.
pub fn variables() -> Result<Vec<(&'static str, PathBuf)>> {
    let dapr = dapr()?;
    Ok(vec![
        (DAPRD, dapr.daprd),
        (DAPR_SCHEDULER, dapr.scheduler),
        (KAFKA_LIBS, kafka()?.libs),
        (REDIS_SERVER, redis_server()?),
    ])
}

/// Dapr. The first time takes minutes.
pub fn dapr() -> Result<Dapr> {
    if let (Some(daprd), Some(scheduler)) = (named(DAPRD)?, named(DAPR_SCHEDULER)?) {
        return Ok(Dapr { daprd, scheduler });
    }
    let module = pinned("dapr");
    let version = requirement(&fs::read_to_string(module.join("go.mod"))?, "github.com/dapr/dapr")
        .context("tools/dapr/go.mod requires no github.com/dapr/dapr")?;
    // Without its version the sidecar calls itself "edge".
    let linker = format!("-s -w -X github.com/dapr/dapr/pkg/buildinfo.version={version}");
    let arguments = [
        "-mod=readonly",
        "-trimpath",
        "-tags",
        "stablecomponents",
        "-ldflags",
        &linker,
    ];
    let recipe = arguments.join(" ");
    let pins = [module.join("go.mod"), module.join("go.sum")];
    let folder = cached(&cache_folder()?, "dapr", &pins, &recipe, |draft| {
        eprintln!("dapr {version}: building the sidecar and the scheduler from source, once; this takes minutes");
        let mut build = Command::new(go(&module)?);
        build
            .current_dir(&module)
            .args(["build", "-v"])
            .args(arguments)
            .arg("-o")
            .arg(draft)
            .args(["github.com/dapr/dapr/cmd/daprd", "github.com/dapr/dapr/cmd/scheduler"])
            // Linked without a C library, so that it runs in any image; and without a C compiler.
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "auto");
        run("dapr", "packages", &mut build)
    })?;
    Ok(Dapr {
        daprd: folder.join("daprd"),
        scheduler: folder.join("scheduler"),
    })
}

/// Kafka, with the Java that runs it.
pub fn kafka() -> Result<Kafka> {
    let java = java()?;
    if let Some(libs) = named(KAFKA_LIBS)? {
        return Ok(Kafka { java, libs });
    }
    let project = pinned("kafka");
    let pins = [project.join("pom.xml")];
    let folder = cached(&cache_folder()?, "kafka", &pins, "", |draft| {
        eprintln!("kafka: fetching its jars, once");
        let mut fetch = Command::new(program("mvn", "maven")?);
        fetch
            .args(["--batch-mode", "dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg("-f")
            .arg(project.join("pom.xml"))
            .arg(format!("-DoutputDirectory={}", draft.join("libs").display()));
        run("kafka", "lines of maven", &mut fetch)
    })?;
    Ok(Kafka {
        java,
        libs: folder.join("libs"),
    })
}

/// This machine's Redis.
pub fn redis_server() -> Result<PathBuf> {
    match named(REDIS_SERVER)? {
        Some(given) => Ok(given),
        None => program("redis-server", "redis-server"),
    }
}

/// What a variable names, when it is set.
fn named(variable: &str) -> Result<Option<PathBuf>> {
    let Some(given) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(given);
    ensure!(path.exists(), "{variable} names {}, which is not there", path.display());
    Ok(Some(path))
}

/// A folder of `e2e/tools/`.
fn pinned(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name)
}

/// The folder that `make` fills when it is not there yet. The contents of `pins` and the recipe are in its name.
fn cached(
    cache: &Path,
    name: &str,
    pins: &[PathBuf],
    recipe: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let hash = hash_of(pins, recipe)?;
    let folder = cache.join(format!("{name}-{hash}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(cache).with_context(|| format!("cannot make the folder {}", cache.display()))?;
    let _lock = lock(&cache.join(format!("{name}.lock")), name)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let draft = cache.join(format!("{name}-{hash}.draft"));
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir(&draft)?;
    make(&draft)?;
    fs::rename(&draft, &folder)?;
    eprintln!("{name}: ready in {}", folder.display());
    Ok(folder)
}

/// By the XDG Base Directory Specification.
fn cache_folder() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .map(|cache| cache.join("todo-platform/tools"))
        .context("neither HOME nor XDG_CACHE_HOME is set: there is no place to keep tools in")
}

fn hash_of(pins: &[PathBuf], recipe: &str) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(recipe);
    for pin in pins {
        let text = fs::read(pin).with_context(|| format!("cannot read {}", pin.display()))?;
        // The length keeps two files from being read as two others.
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let mut digits = String::new();
    for byte in &hash.finalize()[..6] {
        write!(digits, "{byte:02x}")?;
    }
    Ok(digits)
}

/// Held until it is dropped. Other processes, such as other tests, wait.
fn lock(path: &Path, name: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("{name}: waiting for another process that makes it ready"),
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the cache of tools"),
    }
    file.lock()?;
    Ok(file)
}

/// Runs a build to its end and says now and then how far it is. Its last words are in the error.
fn run(name: &str, what: &str, command: &mut Command) -> Result<()> {
    let began = Instant::now();
    let mut reported = began;
    // One pipe for both: the order of the lines tells what went wrong.
    let (output, input) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut process = command
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    // The command holds the pipe's other end, and reading would never end.
    *command = Command::new(command.get_program());
    let mut last = VecDeque::new();
    let mut count: u64 = 0;
    for line in BufReader::new(output).lines() {
        last.push_back(line?);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
        count += 1;
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            eprintln!("{name}: {count} {what} after {} s", began.elapsed().as_secs());
        }
    }
    let status = process.wait()?;
    if !status.success() {
        let last: Vec<String> = last.into();
        bail!("{name}: it cannot be made ready ({status}):\n{}", last.join("\n"));
    }
    Ok(())
}

/// A Go that is new enough, or that gets one that is.
fn go(module: &Path) -> Result<PathBuf> {
    let needed = fs::read_to_string(module.join("go.mod"))?;
    let needed = needed
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .context("tools/dapr/go.mod names no Go")?
        .trim()
        .to_owned();
    let advice = format!(
        "install Go {needed} or newer from your system or from its makers (Debian 12's own is too old), or name built \
         programs in {DAPRD} and {DAPR_SCHEDULER}"
    );
    let Some(go) = find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file())) else {
        bail!("dapr is built with Go, which is not here: {advice}");
    };
    let version = first_line(Command::new(&go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
    let numbers = version.trim().trim_start_matches("go");
    match two_numbers(numbers) {
        Some(found) if found >= GO_THAT_FETCHES => Ok(go),
        _ => bail!("dapr needs a newer Go than {version:?}: {advice}"),
    }
}

fn java() -> Result<PathBuf> {
    let java = program("java", "default-jre-headless")?;
    let output = Command::new(&java)
        .arg("-version")
        .output()
        .context("cannot run java")?;
    let said = String::from_utf8_lossy(&output.stderr);
    match java_version(&said) {
        Some(version) if version >= OLDEST_JAVA => Ok(java),
        Some(version) => bail!("kafka needs Java {OLDEST_JAVA} or newer, this is {version}: install a newer one"),
        None => bail!("this is no Java that kafka could run on: {}", said.trim()),
    }
}

/// Reads `openjdk version "17.0.15" 2025-04-15`; Java 8 called itself 1.8.
fn java_version(said: &str) -> Option<u32> {
    let (_, version) = said.split_once("version \"")?;
    let first = version.split(['.', '"', '-']).next()?;
    first.parse().ok()
}

fn two_numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| {
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    Some((numbers.next()??, numbers.next()??))
}

/// The version of a module that a go.mod requires, without its `v`.
fn requirement(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        let version = (words.next()? == module).then(|| words.next())??;
        Some(version.trim_start_matches('v').to_owned())
    })
}

fn first_line(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// A program of this machine. One that is missing is installed, or the error says how.
fn program(name: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = find(name) {
        return Ok(found);
    }
    let Some(apt) = find("apt-get").filter(|_| Uid::effective().is_root()) else {
        bail!("{name} is not here: install it (Debian's package is {package})");
    };
    let cache = cache_folder()?;
    fs::create_dir_all(&cache)?;
    let _lock = lock(&cache.join("apt.lock"), name)?;
    if let Some(found) = find(name) {
        return Ok(found);
    }
    eprintln!("{name}: installing the package {package}");
    let install = |arguments: &[&OsStr]| {
        let mut command = Command::new(&apt);
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run(name, "lines of apt-get", &mut command)
    };
    let install_package: Vec<&OsStr> = ["install", "--yes", "--no-install-recommends", package]
        .map(OsStr::new)
        .into();
    if install(&install_package).is_err() {
        // On a fresh machine apt knows of no package at all.
        install(&[OsStr::new("update")])?;
        install(&install_package)?;
    }
    find(name).with_context(|| format!("{name} is still not here after its package {package} was installed"))
}

/// A program on the search path; an account's own path may lack the system's folders.
fn find(name: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_write_them() {
        assert_eq!(two_numbers("1.26.8"), Some((1, 26)));
        assert_eq!(two_numbers("1.19rc1"), Some((1, 19)));
        assert_eq!(two_numbers(""), None);
        assert_eq!(
            java_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"),
            Some(17)
        );
        assert_eq!(java_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_version("java version \"1.8.0_442\""), Some(1));
        assert_eq!(java_version("no such thing"), None);
    }

    #[test]
    fn the_pinned_dapr_is_the_one_in_its_go_mod() -> Result<()> {
        let go_mod = fs::read_to_string(pinned("dapr").join("go.mod"))?;
        let version = requirement(&go_mod, "github.com/dapr/dapr").context("no version")?;
        assert!(
            two_numbers(&version).is_some_and(|version| version >= (1, 16)),
            "{version}"
        );
        assert_eq!(
            requirement("require example.com/a v1.2.3", "example.com/a").as_deref(),
            Some("1.2.3")
        );
        assert_eq!(requirement("\texample.com/ab v1.2.3", "example.com/a"), None);
        Ok(())
    }

    #[test]
    fn a_tool_is_made_once_and_again_when_its_pins_change() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let pins = [folder.path().join("pin")];
        fs::write(&pins[0], "one")?;
        let cache = folder.path().join("cache");
        let made = AtomicUsize::new(0);
        let get = || {
            cached(&cache, "tool", &pins, "recipe", |draft| {
                made.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                Ok(fs::write(draft.join("program"), "")?)
            })
        };
        let folders = std::thread::scope(|scope| {
            let processes = [scope.spawn(get), scope.spawn(get)];
            processes.map(|process| process.join().expect("it does not panic"))
        });
        let [first, second] = folders.map(|folder| folder.expect("it is made"));
        assert_eq!(first, second);
        assert!(first.join("program").is_file());
        assert_eq!(made.load(Ordering::SeqCst), 1);

        fs::write(&pins[0], "two")?;
        assert_ne!(get()?, first);
        assert_eq!(made.load(Ordering::SeqCst), 2);
        Ok(())
    }

    #[test]
    fn a_tool_that_was_half_made_is_made_anew() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let fails = cached(folder.path(), "tool", &[], "", |draft| {
            fs::write(draft.join("half"), "")?;
            bail!("the network is away")
        });
        assert!(fails.is_err());
        let made = cached(folder.path(), "tool", &[], "", |draft| {
            Ok(fs::write(draft.join("whole"), "")?)
        })?;
        assert!(made.join("whole").is_file() && !made.join("half").exists());
        Ok(())
    }

    #[test]
    fn what_a_failed_build_said_last_is_in_the_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = run("tool", "lines", &mut command).expect_err("it fails").to_string();
        assert!(error.contains("tool") && error.contains("out\nerr"), "{error}");
    }
}
