//! Secrets that the platform makes: keys and passwords that are drawn once, and what sidecars log in to Kafka with.
//!
//! What is drawn is written only when it is not there. So the body of one that is there already is another draw, which
//! is never sent. The internal key alone gets another value, when an annotation of the platform asks for it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::database::{self, Place};
use super::draft::Draft;
use crate::child::{Child, Kind, Write};
use crate::names::ROTATE_INTERNAL_KEY;
use crate::platform::{InternalKey, SecretFacts};

/// The key of the token in the Secrets that Dapr's annotations name: Dapr's own choice.
pub(super) const DAPR_TOKEN_KEY: &str = "token";
/// The key of the secret of tokens that is made for the platform.
pub(super) const TOKEN_KEY: &str = "secret";
/// The internal key.
pub(super) const INTERNAL_KEY: &str = "key";
/// The internal key before this one: the API takes it for an hour, so who writes both is never shut out.
const PREVIOUS_INTERNAL_KEY: &str = "previous";

type Data = BTreeMap<String, Vec<u8>>;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let (names, drawn) = (&draft.names, &draft.inputs.drawn);
    let mut secrets = vec![internal_key(draft)];
    let mut once = |name: String, component: &str, values: Data| {
        let object = draft.object(Kind::Secret, name).component(component);
        secrets.push(object.write(Write::Once).content(&secret(values)));
    };
    let auth = &draft.spec.auth;
    if auth.oidc.is_none() && auth.secret_ref.is_none() {
        once(names.token(), "api", data([(TOKEN_KEY, &drawn.token)]));
    }
    if draft.wants_sidecars() {
        once(names.app_token(), "dapr", data([(DAPR_TOKEN_KEY, &drawn.app_token)]));
        once(names.dapr_token(), "dapr", data([(DAPR_TOKEN_KEY, &drawn.dapr_token)]));
    }
    if database::own(draft) == Some(Place::StatefulSet) {
        secrets.push(database(draft));
    }
    if let Some(values) = kafka(draft) {
        let object = draft.object(Kind::Secret, names.kafka()).component("kafka");
        secrets.push(object.content(&secret(values)));
    }
    secrets
}

/// The key to the data. Once it is there its values are left alone, but not whose it is: under another deletion policy it
/// must stay with the data, or go with them.
fn database(draft: &Draft) -> Child {
    let (name, password) = (draft.names.database(), &draft.inputs.drawn.database);
    let found = draft.inputs.secrets.get(&name).and_then(|facts| facts.uid.as_ref());
    let object = draft.object(Kind::Secret, name).component("db");
    let object = object.tenure(draft.tenure_of_data());
    if let Some(uid) = found {
        return object.only_of(uid).content(&Secret::default());
    }
    let values = data([
        (database::URL_KEY, &database::url(draft, password)),
        (database::PASSWORD_KEY, password),
    ]);
    object.write(Write::Once).content(&secret(values))
}

fn internal_key(draft: &Draft) -> Child {
    let drawn = &draft.inputs.drawn.internal_key;
    let asked = draft.inputs.platform.annotations().get(ROTATE_INTERNAL_KEY);
    let object = draft.object(Kind::Secret, draft.names.internal_key()).component("api");
    let object = match asked {
        Some(asked) => object.annotation(ROTATE_INTERNAL_KEY, asked),
        None => object,
    };
    match &draft.inputs.internal_key {
        Some(InternalKey {
            resource_version,
            key,
            rotated,
        }) if asked.is_some() && asked != rotated.as_ref() => {
            let mut values = data([(INTERNAL_KEY, drawn)]);
            values.insert(PREVIOUS_INTERNAL_KEY.to_owned(), key.clone());
            object.only_over(resource_version).content(&secret(values))
        }
        _ => object
            .write(Write::Once)
            .content(&secret(data([(INTERNAL_KEY, drawn)]))),
    }
}

/// What sidecars log in to Strimzi's Kafka with, as far as it is known: Strimzi keeps it in its own namespace.
pub(super) fn kafka(draft: &Draft) -> Option<Data> {
    let strimzi = draft.strimzi()?;
    let listener = draft.inputs.kafka.as_ref()?.listener.as_ref()?;
    let mut values = Data::new();
    if strimzi.user.create {
        let password = draft.inputs.kafka_user.as_ref()?.get("password")?;
        values.insert("username".to_owned(), draft.names.kafka_user().into_bytes());
        values.insert("password".to_owned(), password.clone());
    }
    if let Some(ca) = &listener.ca {
        values.insert("ca.crt".to_owned(), ca.clone().into_bytes());
    }
    (!values.is_empty()).then_some(values)
}

/// What changes when this Secret of the platform's namespace does: by what is there, or is made now.
pub(super) fn hash_of(draft: &Draft, name: &str) -> Option<String> {
    if name == draft.names.kafka()
        && let Some(values) = kafka(draft)
    {
        let values = values.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        return Some(SecretFacts::of(values).hash);
    }
    if let Some(facts) = draft.inputs.secrets.get(name) {
        return Some(facts.hash.clone());
    }
    // Pods that are made in the same pass would otherwise roll as soon as they are there.
    let drawn = [
        (draft.names.app_token(), &draft.inputs.drawn.app_token),
        (draft.names.dapr_token(), &draft.inputs.drawn.dapr_token),
    ];
    let (_, token) = drawn.into_iter().find(|(drawn, _)| drawn == name)?;
    Some(SecretFacts::of([(DAPR_TOKEN_KEY, token.as_bytes())]).hash)
}

fn data<const N: usize>(values: [(&str, &str); N]) -> Data {
    values
        .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
        .into()
}

fn secret(values: Data) -> Secret {
    Secret {
        data: Some(
            values
                .into_iter()
                .map(|(key, value)| (key, ByteString(value)))
                .collect(),
        ),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
