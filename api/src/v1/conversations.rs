//! `/conversations`: what a user and an assistant said to each other.
//!
//! A conversation may be kept outside of the database, so its writes share no transaction with the idempotency key.
//! What a request makes gets an id that follows from the key instead: made again, it is the same.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use todo_tasks::conversation::{Appended, Begun, History, MessageInput};
use todo_tasks::idempotency::{self, Key};
use todo_tasks::{Caller, ConversationId, MessageId};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Answer, no_content, replay};
use crate::error::Result;
use crate::extract::{IdempotencyKey, Path, Posted, Query};
use crate::problem::Problems;
use crate::state::{ApiState, Shared};

pub(super) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::default()
        .routes(routes!(begin))
        .routes(routes!(delete))
        .routes(routes!(list, append))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ConversationPath {
    /// The conversation's id.
    id: ConversationId,
}

/// The list is short and has no pages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

/// Begin a conversation
#[utoipa::path(
    post, path = "/conversations", tag = "conversations", operation_id = "begin_conversation",
    params(IdempotencyKey),
    responses(
        (status = 201, description = "The conversation.", body = Begun, headers(("Location" = String, description = "The conversation's path."))),
        Problems,
    ),
)]
async fn begin(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response> {
    let id = key
        .as_ref()
        .map_or_else(ConversationId::new, |key| key.derived_id().into());
    if let Some(answer) = answered_before(&api, &caller, key.as_ref()).await? {
        return Ok(answer);
    }
    let begun = api.conversations.begin(&caller.user, id).await?;
    finish(&api, &caller, key, Answer::created(&uri, begun.id, begun)).await
}

/// Read a conversation
///
/// Its last 100 messages, the oldest first.
#[utoipa::path(
    get, path = "/conversations/{id}/messages", tag = "conversations", operation_id = "list_conversation_messages",
    params(ConversationPath),
    responses((status = 200, description = "The messages.", body = History), Problems),
)]
async fn list(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<ConversationPath>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response> {
    let history = api.conversations.history(&caller.user, path.id).await?;
    Answer::ok(history).send()
}

/// Add a message to a conversation
///
/// One with an id that is there already is not added again.
#[utoipa::path(
    post, path = "/conversations/{id}/messages", tag = "conversations", operation_id = "add_conversation_message",
    params(ConversationPath, IdempotencyKey),
    request_body = MessageInput,
    responses((status = 201, description = "The message.", body = Appended), Problems),
)]
async fn append(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<ConversationPath>,
    posted: Posted<MessageInput>,
) -> Result<Response> {
    let key = posted.key;
    if let Some(answer) = answered_before(&api, &caller, key.as_ref()).await? {
        return Ok(answer);
    }
    let derived = key.as_ref().map(|key| MessageId::from(key.derived_id()));
    let input = MessageInput {
        id: posted.body.id.or(derived),
        ..posted.body
    };
    let appended = api.conversations.append(&caller.user, path.id, input).await?;
    finish(&api, &caller, key, Answer::made(appended)).await
}

/// Delete a conversation
///
/// For good: nothing of it can be read again.
#[utoipa::path(
    delete, path = "/conversations/{id}", tag = "conversations", operation_id = "delete_conversation",
    params(ConversationPath),
    responses((status = 204, description = "It is gone."), Problems),
)]
async fn delete(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<ConversationPath>,
) -> Result<Response> {
    api.conversations.delete(&caller.user, path.id).await?;
    Ok(no_content())
}

/// What a request with this key was answered, if it was. No connection is held after: the store may be slow.
async fn answered_before(api: &ApiState, caller: &Caller, key: Option<&Key>) -> Result<Option<Response>> {
    let Some(key) = key else { return Ok(None) };
    match idempotency::begin(&api.pool, &caller.user, Some(key.clone()), None).await? {
        idempotency::Begun::Fresh(_) => Ok(None),
        idempotency::Begun::Replay(answer) => Ok(Some(replay(&answer))),
    }
}

/// Keeps the answer under the key. Of two requests at a time the first answer counts, for their effect is one.
async fn finish<T: Serialize>(
    api: &ApiState,
    caller: &Caller,
    key: Option<Key>,
    answer: Answer<T>,
) -> Result<Response> {
    if key.is_none() {
        return answer.send();
    }
    match idempotency::begin(&api.pool, &caller.user, key, None).await? {
        idempotency::Begun::Fresh(work) => answer.finish(work).await,
        idempotency::Begun::Replay(before) => Ok(replay(&before)),
    }
}
