//! Which tokens open the API.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use todo_api::{ApiConfig, AuthConfig, token};
use todo_tasks::UserId;

use crate::app::{App, SECRET, config};
use crate::issuer::{Issuer, SigningKey};

const TASKS: &str = "/api/v1/tasks";

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn sign(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// A token whose header and claims are whatever they are, and whose signature is `signature`.
fn forge(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

fn oidc(issuer: &Issuer) -> ApiConfig {
    let auth = AuthConfig::Oidc {
        issuer: issuer.url.clone(),
        audience: "todo".to_owned(),
    };
    ApiConfig { auth, ..config() }
}

/// Sends it and says why it was refused.
async fn refusal(app: &App, token: &str) -> String {
    let refused = app.bearer(token.to_owned()).get(TASKS).await.expect(401);
    assert_eq!(refused.problem(), "unauthorized");
    let challenge = refused.header("www-authenticate");
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    assert!(
        challenge.contains(refused.body["detail"].as_str().unwrap()),
        "{challenge}"
    );
    refused.body["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_with_its_reason() {
    let app = App::spawn().await;
    let hs256 = |claims: Value| sign(Algorithm::HS256, SECRET, &claims);
    let far = now() + 300;
    let cases = [
        (hs256(json!({"sub": "ada", "exp": now() - 31})), "the token has expired"),
        (
            hs256(json!({"sub": "ada", "exp": far, "nbf": now() + 40})),
            "the token is not valid yet",
        ),
        (hs256(json!({"sub": "ada"})), "the token has no usable exp"),
        (
            hs256(json!({"sub": "ada", "exp": "soon"})),
            "the token has no usable exp",
        ),
        (hs256(json!({"exp": far})), "the token is malformed"),
        (hs256(json!({"sub": 7, "exp": far})), "the token is malformed"),
        (hs256(json!({"sub": "", "exp": far})), "the subject is not a user id"),
        (
            hs256(json!({"sub": "a\nb", "exp": far})),
            "the subject is not a user id",
        ),
        (
            hs256(json!({"sub": "x".repeat(256), "exp": far})),
            "the subject is not a user id",
        ),
        (
            hs256(json!({"sub": "ada", "exp": far, "aud": "elsewhere"})),
            "the token is for another audience",
        ),
        (
            sign(
                Algorithm::HS256,
                b"another secret of thirty-two bytes or so",
                &json!({"sub": "ada", "exp": far}),
            ),
            "the token's signature does not hold",
        ),
        (
            sign(Algorithm::HS512, SECRET, &json!({"sub": "ada", "exp": far})),
            "the token's algorithm is not accepted",
        ),
        (
            SigningKey::first().sign(&json!({"sub": "ada", "exp": far})),
            "the token's algorithm is not accepted",
        ),
        ("not.a.token".to_owned(), "the token is malformed"),
        ("x".to_owned(), "the token is malformed"),
    ];
    for (token, reason) in cases {
        assert_eq!(refusal(&app, &token).await, reason, "{token}");
    }
}

#[tokio::test]
async fn clocks_may_be_half_a_minute_apart() {
    let app = App::spawn().await;
    for claims in [
        json!({"sub": "ada", "exp": now() - 20}),
        json!({"sub": "ada", "exp": now() + 300, "nbf": now() + 20}),
        json!({"sub": "ada", "exp": now() + 300, "iss": "whoever"}),
    ] {
        app.bearer(sign(Algorithm::HS256, SECRET, &claims))
            .get(TASKS)
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_checked() {
    let hs256 = App::spawn().await;
    let claims = json!({"sub": "ada", "exp": now() + 300});
    for alg in ["none", "None", "NONE", "", "HS256 "] {
        refusal(&hs256, &forge(&json!({"alg": alg, "typ": "JWT"}), &claims, "")).await;
    }
    refusal(&hs256, &forge(&json!({"typ": "JWT"}), &claims, "")).await;
    refusal(&hs256, &forge(&json!({"alg": "HS256"}), &claims, "")).await;
    let own_key = json!({"alg": "RS256", "jwk": SigningKey::first().public()});
    refusal(&hs256, &forge(&own_key, &claims, "c2ln")).await;
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["exp".to_owned()]);
    let critical = jsonwebtoken::encode(&critical, &claims, &EncodingKey::from_secret(SECRET)).unwrap();
    assert_eq!(refusal(&hs256, &critical).await, "the token has critical extensions");

    let key = SigningKey::first();
    let issuer = Issuer::spawn(&[&key]).await;
    let oidc = App::spawn_with(oidc(&issuer)).await;
    // The public key as a shared secret, in each form in which an attacker has it.
    let public = key.public();
    let modulus = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    for secret in [
        public.to_string().into_bytes(),
        public["n"].as_str().unwrap().as_bytes().to_vec(),
        modulus,
    ] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("first".to_owned());
        let token = jsonwebtoken::encode(&header, &issuer.claims("ada"), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(refusal(&oidc, &token).await, "the token's algorithm is not accepted");
    }
    // A key that the token brings along is not a key of the issuer.
    let stranger = SigningKey::second();
    let jwk = serde_json::from_value(stranger.public()).unwrap();
    let brought = stranger.sign_with(
        |header| {
            header.kid = Some("first".to_owned());
            header.jwk = Some(jwk);
        },
        &issuer.claims("ada"),
    );
    assert_eq!(refusal(&oidc, &brought).await, "the token's signature does not hold");
}

#[tokio::test]
async fn no_token_is_told_apart_from_a_bad_one() {
    let app = App::spawn().await;
    let refused = app.nobody().get(TASKS).await.expect(401);
    assert_eq!(refused.header("www-authenticate"), r#"Bearer realm="todo""#);
    let basic = app
        .nobody()
        .request(reqwest::Method::GET, TASKS)
        .basic_auth("ada", Some("x"));
    let refused = crate::app::Reply::to(basic).await.expect(401);
    assert_eq!(refused.header("www-authenticate"), r#"Bearer realm="todo""#);
    app.nobody()
        .get(&format!("{TASKS}?access_token={}", "x"))
        .await
        .expect(401);
}

#[tokio::test]
async fn a_short_secret_is_refused_at_the_start() {
    let app = App::spawn().await;
    let auth = AuthConfig::Hs256 { secret: vec![7; 31] };
    let state = todo_api::ApiState::new(
        ApiConfig { auth, ..config() },
        app.db.pool.clone(),
        todo_events::Waker::new(),
        crate::app::metrics(),
    );
    assert!(state.is_err());
    assert!(token::sign(&[7; 31], &UserId::parse("ada").unwrap(), Duration::from_mins(1)).is_err());
}

#[tokio::test]
async fn an_issuers_tokens_open_the_api() {
    let (first, elliptic) = (SigningKey::first(), SigningKey::elliptic());
    let issuer = Issuer::spawn(&[&first, &elliptic]).await;
    issuer.show_also(json!({"kty": "a kind that nobody knows", "kid": "odd"}));
    let app = App::spawn_with(oidc(&issuer)).await;
    for key in [&first, &elliptic] {
        app.bearer(key.sign(&issuer.claims("auth0|ada")))
            .get("/api/auth0%7Cada/tasks")
            .await
            .expect(200);
    }
    let mut several = issuer.claims("ada");
    several["aud"] = json!(["elsewhere", "todo"]);
    app.bearer(first.sign(&several)).get(TASKS).await.expect(200);
    let nameless = first.sign_with(|header| header.kid = None, &issuer.claims("ada"));
    app.bearer(nameless).get(TASKS).await.expect(200);
    assert_eq!(issuer.key_reads(), 1, "the keys are kept");
}

#[tokio::test]
async fn an_issuers_token_for_others_is_refused() {
    let key = SigningKey::first();
    let issuer = Issuer::spawn(&[&key]).await;
    let app = App::spawn_with(oidc(&issuer)).await;
    let cases = [
        ("aud", json!("elsewhere"), "the token is for another audience"),
        ("aud", Value::Null, "the token has no usable aud"),
        (
            "iss",
            json!("https://other.example"),
            "the token is from another issuer",
        ),
        ("iss", Value::Null, "the token has no usable iss"),
        ("exp", json!(now() - 60), "the token has expired"),
        ("exp", Value::Null, "the token has no usable exp"),
        ("nbf", json!(now() + 60), "the token is not valid yet"),
    ];
    for (claim, value, reason) in cases {
        let mut claims = issuer.claims("ada");
        claims[claim] = value;
        assert_eq!(refusal(&app, &key.sign(&claims)).await, reason, "{claims}");
    }
    let own = sign(Algorithm::HS256, SECRET, &issuer.claims("ada"));
    assert_eq!(refusal(&app, &own).await, "the token's algorithm is not accepted");
    let wrong_kind =
        SigningKey::elliptic().sign_with(|header| header.kid = Some("first".to_owned()), &issuer.claims("ada"));
    assert_eq!(refusal(&app, &wrong_kind).await, "the issuer has no such key");
}

#[tokio::test]
async fn keys_that_are_not_for_signatures_are_not_used() {
    let key = SigningKey::first();
    let issuer = Issuer::spawn(&[]).await;
    let mut public = key.public();
    public["use"] = json!("enc");
    issuer.show_also(public);
    let mut public = key.public();
    public["alg"] = json!("RS512");
    issuer.show_also(public);
    let app = App::spawn_with(oidc(&issuer)).await;
    assert_eq!(
        refusal(&app, &key.sign(&issuer.claims("ada"))).await,
        "the issuer has no such key"
    );
}

#[tokio::test]
async fn a_new_key_is_found_and_an_unknown_one_is_not_asked_for_again_and_again() {
    let (first, second) = (SigningKey::first(), SigningKey::second());
    let issuer = Issuer::spawn(&[&first]).await;
    let app = App::spawn_with(oidc(&issuer)).await;
    let of_first = app.bearer(first.sign(&issuer.claims("ada")));
    let of_second = app.bearer(second.sign(&issuer.claims("ada")));
    of_first.get(TASKS).await.expect(200);

    issuer.show(&[&first, &second]);
    for _ in 0..20 {
        of_second.get(TASKS).await.expect(401);
    }
    assert_eq!(issuer.key_reads(), 1, "the issuer was asked a moment ago");
    tokio::time::sleep(Duration::from_millis(5100)).await;
    let (one, other) = tokio::join!(of_second.get(TASKS), of_second.get(TASKS));
    assert_eq!((one.status.as_u16(), other.status.as_u16()), (200, 200));
    assert_eq!(issuer.key_reads(), 2, "one asks for all");
    of_first.get(TASKS).await.expect(200);

    // A withdrawn key goes as soon as the keys are read again.
    issuer.show(&[&second]);
    tokio::time::sleep(Duration::from_millis(5100)).await;
    app.bearer(SigningKey::elliptic().sign(&issuer.claims("ada")))
        .get(TASKS)
        .await
        .expect(401);
    of_first.get(TASKS).await.expect(401);
    of_second.get(TASKS).await.expect(200);

    // And what is known goes on while the issuer is away.
    issuer.stop();
    tokio::time::sleep(Duration::from_millis(5100)).await;
    of_first.get(TASKS).await.expect(401);
    of_second.get(TASKS).await.expect(200);
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_not_the_callers_fault() {
    let key = SigningKey::first();
    let issuer = Issuer::spawn(&[&key]).await;
    issuer.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let app = App::spawn_with(oidc(&issuer)).await;
    let unavailable = app.bearer(key.sign(&issuer.claims("ada"))).get(TASKS).await.expect(503);
    assert_eq!(unavailable.problem(), "unavailable");
    assert!(!unavailable.text.contains("127.0.0.1"), "{}", unavailable.text);
    app.nobody().get(TASKS).await.expect(401);
}
