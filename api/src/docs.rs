//! The API's description: the OpenAPI document, and a page to read and try it.
//!
//! The document follows from the routes in `v1`. `api/openapi.json` is the blessed copy: a change to the API shows as
//! a change of that file.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use todo_tasks::task::{Direction, Sort};
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::problem::Problem;
use crate::v1;

/// The API's own version: of its shape, not of the binary.
const API_VERSION: &str = "1";

/// The page's scripts and styles come from this server, and nothing may frame it.
const PAGE_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                           frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Todo Platform",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        description = "Tasks, reminders and schedules.\n\n\
            Everything under `/api/v1` belongs to the user that the token's `sub` names. The same routes exist under \
            `/api/{user_id}`, where `user_id` must be that user.\n\n\
            Changes answer with an `ETag`; send it as `If-Match` to change only what you have seen. Every POST takes \
            an `Idempotency-Key`. Lists come in pages: follow `next_cursor`, or the `Link` header. Every failure is a \
            `Problem` (RFC 9457), and every answer has an `X-Request-Id`."
    ),
    // What only a query's parameters refer to is not found by itself.
    components(schemas(Problem, Sort, Direction)),
    modifiers(&BearerToken),
    security(("bearer" = [])),
    tags(
        (name = "tasks", description = "What is to be done."),
        (name = "reminders", description = "What a task says before it is due."),
        (name = "schedules", description = "What makes tasks again and again."),
        (name = "notifications", description = "What the platform told the user."),
        (name = "conversations", description = "What the user and an assistant said."),
    ),
)]
struct Document;

struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, document: &mut OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The description of everything under `/api/v1`.
pub fn openapi() -> OpenApi {
    let mut document = <Document as utoipa::OpenApi>::openapi().nest("/api/v1", v1::routes().into_openapi());
    API_VERSION.clone_into(&mut document.info.version);
    document
}

/// The text of `api/openapi.json`.
///
/// # Panics
/// Never: the document has only string keys.
pub fn openapi_json() -> String {
    let mut text = openapi().to_pretty_json().expect("the document has only string keys");
    text.push('\n');
    text
}

/// `/openapi.json` and `/docs`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = bytes::Bytes::from(openapi_json());
    let serve_document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    let config = Config::from("/openapi.json")
        .try_it_out_enabled(true)
        .persist_authorization(false);
    let page: Router<S> = SwaggerUi::new("/docs").config(config).into();
    let page = page.layer(axum::middleware::map_response(with_page_policy));
    Router::new().route("/openapi.json", get(serve_document)).merge(page)
}

async fn with_page_policy(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    response
}
