//! The images of a cluster, which no registry is asked for: written from the programs, and imported one by one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use todo_test_tools as tools;

use crate::image::Image;

/// The first process of every pod, which holds its namespaces.
pub(super) const PAUSE: &str = "localhost/todo-cluster/pause:1";
const ENTRYPOINT: &str = include_str!("postgres.sh");
const COREDNS: &str = "localhost/todo-cluster/coredns:1";
/// The registry in the names of Dapr's images.
pub(super) const DAPR_REGISTRY: &str = "localhost/dapr";

/// Writes an image into the folder and hands it to containerd, which has it under `k8s.io`, where kubelet looks.
pub(super) fn import(ctr: &Path, socket: &Path, folder: &Path, image: &Image) -> Result<()> {
    let archive = folder.join("image.tar");
    image.write(&archive)?;
    let imported = import_archive(ctr, socket, &archive);
    fs::remove_file(&archive)?;
    imported.with_context(|| format!("the image {} is not imported", image.name))
}

/// Hands an archive of an image to containerd.
pub(super) fn import_archive(ctr: &Path, socket: &Path, archive: &Path) -> Result<()> {
    let output = Command::new(ctr)
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive)
        .output()
        .context("cannot run ctr")?;
    ensure!(
        output.status.success(),
        "ctr failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// What pods need before anything else.
pub(super) fn first(folder: &Path) -> Result<Vec<Image>> {
    Ok(vec![
        Image::of(PAUSE, &pause(folder)?)?,
        Image::of(COREDNS, &tools::coredns()?)?,
    ])
}

/// Dapr's sidecar and control plane, under the names that its chart gives them.
pub(super) fn dapr() -> Result<Vec<Image>> {
    let (sidecar, control_plane) = (tools::dapr()?, tools::dapr_control_plane()?);
    let version = tools::dapr_version()?;
    let programs = [
        sidecar.daprd,
        sidecar.scheduler,
        control_plane.sentry,
        control_plane.injector,
        control_plane.operator,
        control_plane.placement,
    ];
    let images = programs.iter().map(|program| {
        let name = program
            .file_name()
            .and_then(|name| name.to_str())
            .context("it has a name")?;
        Image::of(format!("{DAPR_REGISTRY}/{name}:{version}"), program)
    });
    images.collect()
}

/// PostgreSQL of this machine, in the place of the official image.
pub(super) fn postgres(folder: &Path) -> Result<Image> {
    let programs = tools::postgres()?;
    let entrypoint = folder.join("entrypoint.sh");
    fs::write(&entrypoint, ENTRYPOINT)?;
    fs::set_permissions(&entrypoint, fs::Permissions::from_mode(0o755))?;
    let mut image = Image::of(super::POSTGRES_IMAGE, &entrypoint)?;
    let mut add = |path: PathBuf| -> Result<()> {
        for library in libraries_of(&path)? {
            image.files.insert(inside(Path::new(&library)), library.into());
        }
        image.files.insert(inside(&path), path);
        Ok(())
    };
    add("/bin/sh".into())?;
    for program in ["postgres", "initdb", "pg_ctl", "pg_isready", "createdb"] {
        add(programs.join(program))?;
    }
    for folder in ["--pkglibdir", "--sharedir"] {
        let mut ask = Command::new(programs.join("pg_config"));
        let folder = String::from_utf8(ask.arg(folder).output().context("cannot run pg_config")?.stdout)?;
        for file in files_below(Path::new(folder.trim()))? {
            image.files.insert(inside(&file), file);
        }
    }
    // Debian's PostgreSQL has no time zones of its own.
    let zone = PathBuf::from("/usr/share/zoneinfo/UTC");
    image.files.insert(inside(&zone), zone);
    image
        .environment
        .insert("PATH".to_owned(), format!("{}:/bin", programs.display()));
    // initdb wants the user to have a name.
    let accounts = folder.join("passwd");
    fs::write(
        &accounts,
        "root:x:0:0:root:/:/none\npostgres:x:999:999:postgres:/:/none\n",
    )?;
    image.files.insert("etc/passwd".to_owned(), accounts);
    Ok(image)
}

/// All files in the folder and in those in it. What compiles queries to machine code is left out: it is large.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        } else if !path.ends_with("bitcode") && !path.ends_with("man") {
            files.extend(files_below(&path)?);
        }
    }
    Ok(files)
}

/// The path within an image of a file that is in the same place outside.
fn inside(path: &Path) -> String {
    path.display().to_string().trim_start_matches('/').to_owned()
}

/// A program with the libraries that it is linked with, where it looks for them.
pub(super) fn linked(name: &str, program: &Path) -> Result<Image> {
    let mut image = Image::of(name, program)?;
    image.add_authorities()?;
    for library in libraries_of(program)? {
        image.files.insert(inside(Path::new(&library)), library.into());
    }
    Ok(image)
}

/// The libraries that a program is linked with; none when that was done statically.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.lines().filter_map(library).map(str::to_owned).collect())
}

/// Reads `libc.so.6 => /lib/libc.so.6 (0x7f00)` and `/lib64/ld.so (0x7f00)`.
fn library(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.find(|word| word.starts_with('/'))
}

/// Writes a program that sleeps for ever. It is a few machine instructions: no compiler is needed for it.
fn pause(folder: &Path) -> Result<PathBuf> {
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        // pause(); again
        "x86_64" => (62, &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        // ppoll(NULL, 0, NULL, NULL, 0); again
        "aarch64" => (
            183,
            &[
                0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28,
                0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
            ],
        ),
        other => bail!("a cluster runs on x86_64 and aarch64, not on {other}"),
    };
    let path = folder.join("pause");
    fs::write(&path, executable(machine, code))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// An executable file of the form ELF (`elf(5)`): its header, one segment, the code.
fn executable(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x0040_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let short = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    short(&mut file, 2); // executable
    short(&mut file, machine);
    word(&mut file, 1);
    long(&mut file, BASE + HEADERS); // entry
    long(&mut file, 64); // program header
    long(&mut file, 0);
    word(&mut file, 0);
    for value in [64, 56, 1, 64, 0, 0] {
        short(&mut file, value);
    }
    word(&mut file, 1); // loaded
    word(&mut file, 5); // readable and executable
    for value in [0, BASE, BASE, size, size, 0x1_0000] {
        long(&mut file, value);
    }
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_as_ldd_writes_them() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x7ffe)"), None);
        assert_eq!(
            library("\tlibm.so.6 => /lib/libm.so.6 (0x7f00)"),
            Some("/lib/libm.so.6")
        );
        assert_eq!(
            library("\t/lib64/ld-linux-x86-64.so.2 (0x7f00)"),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(library("\tstatically linked"), None);
    }

    #[test]
    fn the_pause_program_runs_until_it_is_killed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut child = Command::new(pause(folder.path())?).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        let ended = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        assert_eq!(ended, None);
        Ok(())
    }
}
