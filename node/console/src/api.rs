//! The API's paths: which request asks what of the [`Source`], and how its answer looks as HTTP.
//!
//! ```text
//! GET    /api/status        200 the status
//! GET    /api/health        200 or 503 {"ok", "reason"}
//! POST   /api/step-down     {"to": 2} or no body
//! POST   /api/reclaim       {"group": "south"}, by name or id
//! POST   /api/forget-group  {"group": "south", "dry_run": true}
//! POST   /api/members       {"node": 4, "peer": "host:port", …}: 202, it is reached and catches up
//! GET    /api/members/4     {"node": 4, "state": "catching_up", "lag_entries": 12, …}
//! DELETE /api/members/4
//! ```
//!
//! Where there are users, everything but health needs one (HTTP's Basic authentication), and what changes something one
//! of an admin group: 401, 403, and 429 after too many failures.
//!
//! Whatever is refused is answered with `{"error": {"kind", "text"}}`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Answer, Gate, Login, NewMember, Refusal, RefusalKind, Source, Wish, bounded::Caller, guard::Guard};

/// Largest request body; the largest legitimate one has a few hundred bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How a browser or a tool is asked for a login (RFC 7617).
const CHALLENGE: &str = "Basic realm=\"FerryMQ\", charset=\"UTF-8\"";

type Node = State<Arc<dyn Source>>;

/// What a request has to pass before it meets a path.
struct Doors {
    guard: Guard,
    gate: Arc<dyn Gate>,
}

/// For probes, which have no user: it tells whether the node can work, and its role.
const HEALTH: &str = "/api/health";

/// All paths, behind the guard and the gate.
pub(crate) fn router(source: Arc<dyn Source>, gate: Arc<dyn Gate>, guard: Guard) -> Router {
    Router::new()
        .route("/api/status", get(status))
        .route(HEALTH, get(health))
        .route("/api/step-down", post(step_down))
        .route("/api/reclaim", post(reclaim))
        .route("/api/forget-group", post(forget_group))
        .route("/api/members", post(add_member))
        .route("/api/members/{node}", get(member).delete(remove_member))
        .fallback(async || refusal(RefusalKind::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || refusal(RefusalKind::Method, "this path does not take this method"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // Outermost, so that not even the paths that exist are told to a stranger.
        .layer(middleware::from_fn_with_state(Arc::new(Doors { guard, gate }), admit))
        .with_state(source)
}

async fn admit(
    State(doors): State<Arc<Doors>>,
    ConnectInfo(Caller(from)): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let passing = pass(&doors, from, &request);
    let mut response = match passing.await {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            tracing::debug!(%from, reason = %refused, "admin request refused");
            refused.into_response()
        }
    };
    // Names of clients' choosing are in the answers: no browser shall take one for a page.
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a request may meet its path at all.
fn pass(doors: &Doors, from: SocketAddr, request: &Request) -> Answer<'static, Result<(), Refusal>> {
    let (method, headers) = (request.method(), request.headers());
    let is_probe = request.uri().path() == HEALTH && (method == Method::GET || method == Method::HEAD);
    if let Err(refusal) = doors.guard.admit(method, headers) {
        return Box::pin(async { Err(refusal) });
    }
    if is_probe {
        return Box::pin(async { Ok(()) });
    }
    let (gate, login, wish) = (doors.gate.clone(), Login::of(headers), Wish::of(method));
    Box::pin(async move { gate.admit(from, login, wish).await })
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgetGroup {
    group: String,
    #[serde(default)]
    dry_run: bool,
}

async fn forget_group(State(source): Node, body: Bytes) -> Result<Json<Value>, Refusal> {
    let wanted: ForgetGroup = parse(&body)?;
    source.forget_group(wanted.group, wanted.dry_run).await.map(Json)
}

async fn add_member(State(source): Node, body: Bytes) -> Result<(StatusCode, Json<Value>), Refusal> {
    let member: NewMember = parse(&body)?;
    let begun = source.add_member(member).await?;
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

async fn member(State(source): Node, Path(node): Path<String>) -> Result<Json<Value>, Refusal> {
    source.member(number(&node)?).await.map(Json)
}

async fn remove_member(State(source): Node, Path(node): Path<String>) -> Result<Json<Value>, Refusal> {
    source.remove_member(number(&node)?).await.map(Json)
}

fn number(node: &str) -> Result<u64, Refusal> {
    let wrong = |_| refusal(RefusalKind::Invalid, &format!("{node:?} is not a node's number"));
    node.parse().map_err(wrong)
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
            RefusalKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            RefusalKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            RefusalKind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            RefusalKind::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many"),
            RefusalKind::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            RefusalKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let body = Json(json!({ "error": { "kind": kind, "text": self.text } }));
        if status == StatusCode::UNAUTHORIZED {
            return (status, [(header::WWW_AUTHENTICATE, CHALLENGE)], body).into_response();
        }
        (status, body).into_response()
    }
}
