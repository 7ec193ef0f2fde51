//! Where a secret comes from, and what happens when it changes there.
//!
//! A secret X is given as itself, as a file (`X_FILE`), or as a name in a Dapr secret store (`X_REF`). The latter two are
//! looked at again and again: whoever uses the secret takes the new one without a restart, or says why it cannot, and
//! then the one that it has stays. Nothing of a secret gets into a log or an error.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use todo_dapr::{Client, Secret};
use tokio_util::sync::CancellationToken;

use crate::failure::Refused;

/// The longest secret, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// How often a file is read again.
const READ_FILE_EVERY: Duration = Duration::from_secs(2);

/// How often a secret store is asked again.
const ASK_STORE_EVERY: Duration = Duration::from_secs(30);

/// How often one that is not there at the start is asked for.
const WAIT: Duration = Duration::from_millis(500);

/// A name in a Dapr secret store, written `STORE/NAME/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretRef {
    store: String,
    name: String,
    key: String,
}

impl FromStr for SecretRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name may have slashes, as those of some stores do.
        let parts = text.split_once('/').and_then(|(store, rest)| {
            let (name, key) = rest.rsplit_once('/')?;
            Some((store, name, key))
        });
        match parts {
            Some((store, name, key)) if [store, name, key].into_iter().all(is_name) => Ok(Self {
                store: store.to_owned(),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
            _ => {
                Err("write STORE/NAME/KEY: the secret store's component, the secret's name, and a key in it".to_owned())
            }
        }
    }
}

/// Nothing that is in a URL with a password: a reference is shown in logs.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'))
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.store, self.name, self.key)
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug)]
enum Place {
    Given(Secret),
    File(PathBuf),
    Store(SecretRef, Client),
}

/// A secret setting.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The setting's name, for logs and errors.
    name: &'static str,
    place: Place,
}

impl Source {
    /// The one way in which the setting `name` is given; `None` when it is not given at all. `client` is made when a
    /// secret store is to be asked.
    pub(crate) fn one_of(
        name: &'static str,
        given: Option<&str>,
        file: Option<&Path>,
        reference: Option<&SecretRef>,
        client: impl FnOnce() -> Result<Client>,
    ) -> Result<Option<Self>> {
        let place = match (given, file, reference) {
            (None, None, None) => return Ok(None),
            (Some(given), None, None) => Place::Given(Secret::new(given)),
            (None, Some(file), None) => Place::File(file.to_owned()),
            (None, None, Some(reference)) => Place::Store(reference.clone(), client()?),
            _ => {
                return Err(Refused::because(format_args!(
                    "{name} is given in more than one way: keep one of {name}, {name}_FILE and {name}_REF"
                )));
            }
        };
        Ok(Some(Self { name, place }))
    }

    /// The secret as it is now. A file that cannot be read is refused; a secret store is waited for, and `waiting` is
    /// told why, each time that the reason is another. `None` when `shutdown` comes first.
    pub(crate) async fn first(&self, shutdown: &CancellationToken, waiting: impl Fn(&str)) -> Result<Option<Secret>> {
        let mut said = String::new();
        while !shutdown.is_cancelled() {
            let error = match self.read().await {
                Ok(secret) => return Ok(Some(secret)),
                Err(error) => error,
            };
            if !matches!(self.place, Place::Store(..)) {
                return Err(Refused::because(error));
            }
            if error != said {
                waiting(&error);
                said = error;
            }
            tokio::select! {
                () = tokio::time::sleep(WAIT) => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(None)
    }

    /// Looks at the secret until `shutdown`, and hands each new one to `take`, which says why when it cannot use it.
    /// One that was not taken is handed over again the next time: what is wrong may be mended elsewhere. `current` is
    /// the one in use.
    pub(crate) async fn follow<F>(
        self,
        mut current: Secret,
        shutdown: CancellationToken,
        mut take: impl FnMut(Secret) -> F,
    ) where
        F: Future<Output = Result<(), String>>,
    {
        let every = match self.place {
            Place::Given(_) => return,
            Place::File(_) => READ_FILE_EVERY,
            Place::Store(..) => ASK_STORE_EVERY,
        };
        let mut said = String::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let outcome = match self.read().await {
                Ok(secret) if secret == current => Ok(None),
                Ok(secret) => match take(secret.clone()).await {
                    Ok(()) => Ok(Some(secret)),
                    Err(reason) => Err(format!("{} has changed and cannot be used: {reason}", self.name)),
                },
                Err(error) => Err(error),
            };
            let failing = if outcome.is_err() { 1.0 } else { 0.0 };
            metrics::gauge!("todo_secret_reload_failing", "setting" => self.name).set(failing);
            match outcome {
                Ok(changed) => {
                    said.clear();
                    if let Some(secret) = changed {
                        current = secret;
                        tracing::info!(setting = self.name, "took the secret that has changed");
                    }
                }
                // Once, however often it is looked at.
                Err(error) if error != said => {
                    tracing::error!(error, "the secret in use stays");
                    said = error;
                }
                Err(_) => {}
            }
        }
    }

    async fn read(&self) -> Result<Secret, String> {
        let name = self.name;
        let secret = match &self.place {
            Place::Given(secret) => Ok(secret.clone()),
            Place::File(path) => read_file(path).await.map_err(|error| format!("{name}_FILE: {error}")),
            Place::Store(reference, client) => ask(client, reference)
                .await
                .map_err(|error| format!("{name}_REF: {reference}: {error}")),
        }?;
        if secret.expose().is_empty() {
            return Err(format!("{name} is empty"));
        }
        Ok(secret)
    }
}

/// A file's content without the line end that editors leave. The error does not show the path: it may be a secret that
/// was given for one.
async fn read_file(path: &Path) -> Result<Secret, String> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_now(&path));
    reading.await.map_err(|error| error.to_string())?
}

/// The same, for a command that does nothing else meanwhile.
pub(crate) fn read_now(path: &Path) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("the file cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("the file is longer than {MAX_BYTES} bytes"));
    }
    let content = String::from_utf8(content).map_err(|_| "the file is not text".to_owned())?;
    Ok(Secret::new(content.trim_end_matches(['\r', '\n'])))
}

async fn ask(client: &Client, reference: &SecretRef) -> Result<Secret, String> {
    let keys = client
        .secret(&reference.store, &reference.name)
        .await
        .map_err(|error| error.to_string())?
        .ok_or("the store has no such secret")?;
    keys.get(&reference.key)
        .cloned()
        .ok_or_else(|| "the secret has no such key".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_a_store_a_name_and_a_key() {
        let reference: SecretRef = "vault/teams/todo/url".parse().unwrap();
        assert_eq!(
            (
                reference.store.as_str(),
                reference.name.as_str(),
                reference.key.as_str()
            ),
            ("vault", "teams/todo", "url")
        );
        for wrong in [
            "",
            "vault",
            "vault/url",
            "vault//url",
            "/name/key",
            "vault/name/",
            "postgres://ada:hunter2@db/todo",
        ] {
            assert!(wrong.parse::<SecretRef>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_is_read_without_its_last_line_end_and_refused_when_it_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(read_now(&path).unwrap().expose(), "hunter2");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_now(&path).unwrap_err(), "the file is not text");
        std::fs::write(&path, vec![b'x'; 64 * 1024 + 1]).unwrap();
        assert!(read_now(&path).unwrap_err().contains("longer"));
        assert!(read_now(&folder.path().join("nowhere")).is_err());
    }
}
