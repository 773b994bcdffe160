//! The API's paths: which request asks what of the [`Source`], and how its answer looks as HTTP.
//!
//! ```text
//! GET    /api/status        200 the status
//! GET    /api/health        200 or 503 {"ok", "reason"}
//! POST   /api/step-down     {"to": 2} or no body
//! POST   /api/reclaim       {"group": "south"}
//! POST   /api/members       {"node": 4, "peer": "host:port", …}
//! DELETE /api/members/4
//! ```
//!
//! Whatever is refused is answered with `{"error": {"kind", "text"}}`.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{NewMember, Refusal, RefusalKind, Source, guard::Guard};

/// Largest request body; the largest legitimate one has a few hundred bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

type Node = State<Arc<dyn Source>>;

/// All paths, behind the guard.
pub(crate) fn router(source: Arc<dyn Source>, guard: Guard) -> Router {
    Router::new()
        .route("/api/status", get(status))
        .route("/api/health", get(health))
        .route("/api/step-down", post(step_down))
        .route("/api/reclaim", post(reclaim))
        .route("/api/members", post(add_member))
        .route("/api/members/{node}", delete(remove_member))
        .fallback(async || refusal(RefusalKind::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || refusal(RefusalKind::Method, "this path does not take this method"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // Outermost, so that not even the paths that exist are told to a stranger.
        .layer(middleware::from_fn_with_state(Arc::new(guard), admit))
        .with_state(source)
}

async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.admit(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            tracing::debug!(reason = %refused, "admin request refused");
            refused.into_response()
        }
    }
}

async fn status(State(source): Node) -> Response {
    Json(source.status().await).into_response()
}

async fn health(State(source): Node) -> Response {
    let health = source.health().await;
    let status = if health.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health)).into_response()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDown {
    to: Option<u64>,
}

async fn step_down(State(source): Node, body: Bytes) -> Result<Json<Value>, Refusal> {
    let wanted: StepDown = if body.is_empty() {
        StepDown::default()
    } else {
        parse(&body)?
    };
    source.step_down(wanted.to).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reclaim {
    group: String,
}

async fn reclaim(State(source): Node, body: Bytes) -> Result<Json<Value>, Refusal> {
    let wanted: Reclaim = parse(&body)?;
    source.reclaim(wanted.group).await.map(Json)
}

async fn add_member(State(source): Node, body: Bytes) -> Result<Json<Value>, Refusal> {
    let member: NewMember = parse(&body)?;
    source.add_member(member).await.map(Json)
}

async fn remove_member(State(source): Node, Path(node): Path<String>) -> Result<Json<Value>, Refusal> {
    let Ok(node) = node.parse() else {
        return Err(refusal(
            RefusalKind::Invalid,
            &format!("{node:?} is not a node's number"),
        ));
    };
    source.remove_member(node).await.map(Json)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| refusal(RefusalKind::Invalid, &format!("the body is not as expected: {error}")))
}

fn refusal(kind: RefusalKind, text: &str) -> Refusal {
    Refusal {
        kind,
        text: text.to_owned(),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind) = match self.kind {
            RefusalKind::NotMaster => (StatusCode::CONFLICT, "not_master"),
            RefusalKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            RefusalKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            RefusalKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            RefusalKind::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            RefusalKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        (status, Json(json!({ "error": { "kind": kind, "text": self.text } }))).into_response()
    }
}
