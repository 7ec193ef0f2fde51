//! An OIDC issuer of a test's own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A signing key of the issuer, for tests only.
pub(crate) struct SigningKey {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
}

impl SigningKey {
    pub(crate) fn first() -> Self {
        Self::rsa("first", include_bytes!("keys/rsa_first.pem"))
    }

    pub(crate) fn second() -> Self {
        Self::rsa("second", include_bytes!("keys/rsa_second.pem"))
    }

    pub(crate) fn elliptic() -> Self {
        let private = EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")).unwrap();
        Self {
            id: "elliptic",
            algorithm: Algorithm::ES256,
            private,
        }
    }

    fn rsa(id: &'static str, pem: &[u8]) -> Self {
        Self {
            id,
            algorithm: Algorithm::RS256,
            private: EncodingKey::from_rsa_pem(pem).unwrap(),
        }
    }

    /// The public half, as an issuer shows it.
    pub(crate) fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.private, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_with(|_| (), claims)
    }

    pub(crate) fn sign_with(&self, adjust: impl FnOnce(&mut Header), claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        adjust(&mut header);
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

/// Serves a discovery document and keys that can be exchanged.
pub(crate) struct Issuer {
    pub(crate) url: String,
    documents: Arc<Documents>,
    server: AbortHandle,
}

struct Documents {
    url: String,
    keys: Mutex<Vec<Value>>,
    key_reads: AtomicUsize,
}

impl Issuer {
    pub(crate) async fn spawn(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/realm", listener.local_addr().unwrap());
        let documents = Arc::new(Documents {
            url: url.clone(),
            keys: Mutex::default(),
            key_reads: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", get(discovery))
            .route("/realm/keys", get(key_set))
            .with_state(Arc::clone(&documents));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        let issuer = Self { url, documents, server };
        issuer.show(keys);
        issuer
    }

    /// From now on these are its keys.
    pub(crate) fn show(&self, keys: &[&SigningKey]) {
        *self.documents.keys.lock().unwrap() = keys.iter().map(|key| key.public()).collect();
    }

    pub(crate) fn show_also(&self, key: Value) {
        self.documents.keys.lock().unwrap().push(key);
    }

    /// How often its keys were read.
    pub(crate) fn key_reads(&self) -> usize {
        self.documents.key_reads.load(Ordering::Relaxed)
    }

    /// It is away.
    pub(crate) fn stop(&self) {
        self.server.abort();
    }

    /// What a good token of it claims.
    pub(crate) fn claims(&self, user: &str) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({"iss": self.url, "aud": "todo", "sub": user, "iat": now, "exp": now + 300})
    }
}

async fn discovery(State(documents): State<Arc<Documents>>) -> Json<Value> {
    Json(json!({"issuer": documents.url, "jwks_uri": format!("{}/keys", documents.url)}))
}

async fn key_set(State(documents): State<Arc<Documents>>) -> Json<Value> {
    documents.key_reads.fetch_add(1, Ordering::Relaxed);
    Json(json!({"keys": *documents.keys.lock().unwrap()}))
}
