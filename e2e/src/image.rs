//! Container images without a container engine: a program, the files that it needs, and what to run, in one archive.
//!
//! The archive is of the form that `docker save` writes, which Docker, Podman, containerd and kind load. The same files
//! make the same bytes: times are zero and entries are in order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ring::digest::{Context as Hash, SHA256, digest};
use serde_json::json;

/// Who runs in an image: distroless' `nonroot`. Dapr's programs insist on it.
pub const NONROOT: u32 = 65_532;

/// Where systems keep the certificate authorities that they trust.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Where they are in an image.
const AUTHORITIES_INSIDE: &str = "etc/ssl/certs/ca-certificates.crt";

/// An image of one program.
#[derive(Clone, Debug)]
pub struct Image {
    /// The whole name: `localhost/todo-platform/todo:0.1.0`.
    pub name: String,
    /// What runs, within the image, with its first arguments.
    pub entrypoint: Vec<String>,
    /// Files by their path within the image, without a leading slash; programs among them are executable.
    pub files: BTreeMap<String, PathBuf>,
    /// Variables of the environment.
    pub environment: BTreeMap<String, String>,
    /// Labels (`org.opencontainers.image.…`).
    pub labels: BTreeMap<String, String>,
}

/// An image that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its id: `sha256:…` of the configuration.
    pub id: String,
    /// How large its files are when they are unpacked, in bytes.
    pub unpacked: u64,
}

impl Image {
    /// One program at the root of the image, which is run.
    pub fn of(name: impl Into<String>, program: &Path) -> Result<Self> {
        let file = program.file_name().and_then(|name| name.to_str());
        let file = file.with_context(|| format!("{} is no program", program.display()))?;
        Ok(Self {
            name: name.into(),
            entrypoint: vec![format!("/{file}")],
            files: [(file.to_owned(), program.to_owned())].into(),
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
        })
    }

    /// Adds the certificate authorities that this machine trusts.
    pub fn add_authorities(&mut self) -> Result<()> {
        let authorities = AUTHORITIES.map(Path::new).into_iter().find(|path| path.is_file());
        let authorities = authorities.context("no certificate authorities here: install ca-certificates")?;
        self.files.insert(AUTHORITIES_INSIDE.to_owned(), authorities.to_owned());
        Ok(())
    }

    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> Result<Written> {
        let layer_path = archive.with_extension("layer");
        let written = self.write_with(archive, &layer_path);
        let _ = fs::remove_file(&layer_path);
        written
    }

    fn write_with(&self, archive: &Path, layer_path: &Path) -> Result<Written> {
        let unpacked = self.write_layer(layer_path)?;
        let layer = sha256_of(layer_path)?;
        let environment = ["PATH=/".to_owned()].into_iter();
        let given = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let config = serde_json::to_vec(&json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": {
                "User": format!("{NONROOT}:{NONROOT}"),
                "Entrypoint": self.entrypoint,
                "Env": environment.chain(given).collect::<Vec<_>>(),
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
            "history": [{"created_by": "todo-platform"}],
        }))?;
        let id = hex::encode(digest(&SHA256, &config));
        let manifest = serde_json::to_vec(&json!([{
            "Config": format!("{id}.json"),
            "RepoTags": [self.name],
            "Layers": [format!("{layer}.tar")],
        }]))?;

        let file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
        let mut archive = tar::Builder::new(BufWriter::new(file));
        append_bytes(&mut archive, "manifest.json", &manifest)?;
        append_bytes(&mut archive, &format!("{id}.json"), &config)?;
        let mut header = header(tar::EntryType::Regular, 0o644);
        header.set_size(fs::metadata(layer_path)?.len());
        archive.append_data(&mut header, format!("{layer}.tar"), File::open(layer_path)?)?;
        archive.into_inner()?.flush()?;
        Ok(Written {
            id: format!("sha256:{id}"),
            unpacked,
        })
    }

    /// The files, the accounts that they are run by, and a folder for temporary ones.
    fn write_layer(&self, path: &Path) -> Result<u64> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut layer = tar::Builder::new(BufWriter::new(file));
        let mut folders = vec![("etc".to_owned(), 0o755), ("tmp".to_owned(), 0o1777)];
        for file in self.files.keys() {
            let parents = Path::new(file).ancestors().skip(1);
            let parents = parents.filter_map(Path::to_str).filter(|parent| !parent.is_empty());
            folders.extend(parents.map(|parent| (parent.to_owned(), 0o755)));
        }
        folders.sort();
        folders.dedup();
        for (folder, mode) in folders {
            let mut header = header(tar::EntryType::Directory, mode);
            header.set_size(0);
            layer.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
        }
        append_bytes(
            &mut layer,
            "etc/passwd",
            format!("root:x:0:0:root:/:/none\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/:/none\n").as_bytes(),
        )?;
        append_bytes(
            &mut layer,
            "etc/group",
            format!("root:x:0:\nnonroot:x:{NONROOT}:\n").as_bytes(),
        )?;
        let mut unpacked = 0;
        for (name, source) in &self.files {
            let opened = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
            let metadata = opened.metadata()?;
            ensure!(metadata.is_file(), "{} is not a file", source.display());
            unpacked += metadata.len();
            let mut header = header(tar::EntryType::Regular, mode_of(&metadata));
            header.set_size(metadata.len());
            layer.append_data(&mut header, name, opened)?;
        }
        layer.into_inner()?.flush()?;
        Ok(unpacked)
    }
}

/// Executable by all or by none: whose it is outside means nothing inside.
fn mode_of(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    if metadata.permissions().mode() & 0o111 == 0 {
        0o644
    } else {
        0o755
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append_bytes(archive: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o644);
    header.set_size(bytes.len() as u64);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

/// As images name it, by Go's words.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("images are made on x86_64 and aarch64, not on {other}"),
    }
}

fn sha256_of(path: &Path) -> Result<String> {
    let mut hash = Hash::new(&SHA256);
    std::io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(hex::encode(hash.finish()))
}

/// What is written is hashed, by machine code in every profile: images have hundreds of megabytes.
struct HashWriter<'a>(&'a mut Hash);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::Value;

    use super::*;

    fn read(archive: impl std::io::Read) -> Result<BTreeMap<String, (u32, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            let (path, mode) = (entry.path()?.display().to_string(), entry.header().mode()?);
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes)?;
            files.insert(path, (mode, bytes));
        }
        Ok(files)
    }

    #[test]
    fn an_image_holds_its_program_and_says_how_to_run_it_and_is_the_same_each_time() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("todo");
        fs::write(&program, "#!")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
        let mut image = Image::of("localhost/todo:1", &program)?;
        image.files.insert("etc/ssl/ca.crt".to_owned(), {
            let path = folder.path().join("ca");
            fs::write(&path, "PEM")?;
            path
        });
        let (one, two) = (folder.path().join("one.tar"), folder.path().join("two.tar"));
        let written = image.write(&one)?;
        image.write(&two)?;
        assert_eq!(fs::read(&one)?, fs::read(&two)?);
        assert_eq!(written.unpacked, 5);

        let archive = read(File::open(&one)?)?;
        let manifest: Value = serde_json::from_slice(&archive["manifest.json"].1)?;
        assert_eq!(manifest[0]["RepoTags"], json!(["localhost/todo:1"]));
        let config_file = manifest[0]["Config"].as_str().context("a name")?;
        assert_eq!(
            config_file,
            format!("{}.json", written.id.trim_start_matches("sha256:"))
        );
        let config: Value = serde_json::from_slice(&archive[config_file].1)?;
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/todo"]));

        let layer = &archive[manifest[0]["Layers"][0].as_str().context("a name")?].1;
        let diff = format!("sha256:{}", hex::encode(digest(&SHA256, layer)));
        assert_eq!(config["rootfs"]["diff_ids"], json!([diff]));
        let files = read(layer.as_slice())?;
        assert_eq!(files["todo"], (0o755, b"#!".to_vec()));
        assert_eq!(files["etc/ssl/ca.crt"], (0o644, b"PEM".to_vec()));
        assert_eq!(files["tmp/"].0, 0o1777);
        assert!(String::from_utf8_lossy(&files["etc/passwd"].1).contains("nonroot:x:65532:65532:"));
        Ok(())
    }
}
