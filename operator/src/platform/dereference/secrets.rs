//! What is known of the Secrets that manifests name, for the passes that follow one another while a platform settles.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::{Client, ResourceExt as _};
use todo_crds::TodoPlatform;
use tokio::time::Instant;

use super::{SecretFacts, secret, secret_facts};
use crate::error::Result;
use crate::names::Names;

/// How long it stands while nobody tells of a change.
const STANDS: Duration = Duration::from_mins(1);

/// What was read of the Secrets that each platform's manifest names. Clones share it.
///
/// Who changes a Secret and the manifest in one `kubectl apply` wants pods to roll once, with both; the watch may tell of
/// the manifest first. So each new generation of a manifest reads anew, and only the passes after that one do not.
#[derive(Clone, Debug, Default)]
pub struct SecretsRead(Arc<Mutex<HashMap<Names, Read>>>);

#[derive(Clone, Debug)]
struct Read {
    of: Version,
    until: Instant,
    /// By name; `None` for one that was not there.
    secrets: BTreeMap<String, Option<SecretFacts>>,
}

/// Of what something was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    uid: Option<String>,
    generation: Option<i64>,
    /// How many changes the watch had told of, see [`Live::news_of_secrets`](crate::live::Live::news_of_secrets).
    news: u64,
}

impl SecretsRead {
    /// The Secrets with these names that are there, in the platform's namespace.
    pub(super) async fn of(
        &self,
        client: &Client,
        platform: &TodoPlatform,
        news: u64,
        names: impl Iterator<Item = String>,
    ) -> Result<BTreeMap<String, SecretFacts>> {
        let key = Names::of(platform);
        let of = Version {
            uid: platform.uid(),
            generation: platform.metadata.generation,
            news,
        };
        let known = self.read().get(&key).cloned();
        let known = known.filter(|known| known.of == of && known.until > Instant::now());
        let until = known
            .as_ref()
            .map_or_else(|| Instant::now() + STANDS, |known| known.until);
        let mut known = known.map(|known| known.secrets).unwrap_or_default();
        let mut secrets = BTreeMap::new();
        for name in names {
            let facts = match known.remove(&name) {
                Some(facts) => facts,
                None => secret(client, &key.namespace, &name).await?.as_ref().map(secret_facts),
            };
            secrets.insert(name, facts);
        }
        let read = Read {
            of,
            until,
            secrets: secrets.clone(),
        };
        self.read().insert(key, read);
        let there = secrets.into_iter().filter_map(|(name, facts)| Some((name, facts?)));
        Ok(there.collect())
    }

    /// The platform is gone.
    pub fn forget(&self, names: &Names) {
        self.read().remove(names);
    }

    fn read(&self) -> MutexGuard<'_, HashMap<Names, Read>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A namespace with the Secret `db` and no other, and how often it was asked.
    fn server() -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            let answer = if request.uri().path() == "/api/v1/namespaces/shop/secrets/db" {
                json!({"metadata": {"name": "db", "uid": "1"}, "data": {"url": ""}})
            } else {
                json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "not there", "status": "Failure"})
            };
            let code = answer["code"].as_u64().map_or(200, |_| 404);
            let answer = http::Response::builder()
                .status(code)
                .body(Body::from(answer.to_string().into_bytes()))
                .expect("an answer");
            async { Ok::<_, Infallible>(answer) }
        });
        (Client::new(service, "shop"), asked)
    }

    fn platform(generation: i64) -> TodoPlatform {
        let mut platform = TodoPlatform::new("acme", serde_json::from_value(json!({"version": "1.0.0"})).unwrap());
        platform.metadata.namespace = Some("shop".to_owned());
        platform.metadata.generation = Some(generation);
        platform
    }

    #[tokio::test]
    async fn a_secret_is_read_once_for_a_manifest_until_there_is_news() {
        let (client, asked) = server();
        let read = SecretsRead::default();
        let reads = async |generation, news, names: &[&str]| {
            let before = asked.load(Ordering::Relaxed);
            let names = names.iter().map(|name| (*name).to_owned());
            let found = read.of(&client, &platform(generation), news, names).await.unwrap();
            assert!(found.keys().eq(["db"]), "{found:?}");
            asked.load(Ordering::Relaxed) - before
        };
        assert_eq!(reads(1, 1, &["db"]).await, 1);
        assert_eq!(reads(1, 1, &["db"]).await, 0);
        assert_eq!(reads(1, 1, &["db", "kafka"]).await, 1, "the other one");
        assert_eq!(
            reads(1, 1, &["db", "kafka"]).await,
            0,
            "that it is not there is known, too"
        );
        assert_eq!(reads(1, 2, &["db"]).await, 1, "news");
        assert_eq!(reads(2, 2, &["db"]).await, 1, "another manifest");
        assert_eq!(reads(2, 2, &["db"]).await, 0);
        for read in read.read().values_mut() {
            read.until = Instant::now();
        }
        assert_eq!(reads(2, 2, &["db"]).await, 1, "it stands for a while only");
        read.forget(&Names::of(&platform(2)));
        assert_eq!(reads(2, 2, &["db"]).await, 1, "it was gone");
    }
}
