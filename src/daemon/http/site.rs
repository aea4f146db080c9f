//! What is served: each path and its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::health::{self, Check, Report, Verbosity};
use super::host::{self, Arrival, HostError};
use super::origin::is_of_another_site;
use super::page::{NO_DOCUMENT, PAGE, policy_of};
use super::shared::Shared;
use crate::daemon::connection::context::Context;
use crate::daemon::runtime::workers::Probe;
use crate::process::usage::Usage;
use crate::status::{Detail, OpenConnection, Status, metrics};

/// How long a status, and what the threads have answered, is good for.
const MOMENT: Duration = Duration::from_millis(200);
/// How long what the target has answered is good for: on a unix socket, some servers count a
/// connection without a word as a failure of their client.
const TARGET: Duration = Duration::from_secs(5);

const PATHS: [&str; 5] = ["/", "/status", "/metrics", "/livez", "/readyz"];

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// How many connections an answer has where no number is asked for. One with more is long.
const FEW: usize = 1000;
/// How many clients may have a long answer at once: it takes megabytes.
const LONG_ANSWERS: usize = 4;
const TOO_MANY: &str = "too many clients ask for all connections at once: try again\n";
const NO_NUMBER: &str = "connections=N: N is a number\n";

type Answer = Response<Full<Bytes>>;

/// What is served.
pub(super) struct Site {
    context: Arc<Context>,
    workers: Probe,
    policy: HeaderValue,
    metrics: Shared<Bytes>,
    status: Shared<Bytes>,
    /// Without the connections, and all of these.
    status_with_open: Shared<Arc<(Status, Vec<OpenConnection>)>>,
    /// Clients that may have a long answer at once.
    long_answers: Arc<Semaphore>,
    threads: Shared<Check>,
    target: Shared<Check>,
}

/// A body, what it is, and how the request went.
struct Content(StatusCode, &'static str, Bytes);

impl Site {
    pub(super) fn new(context: Arc<Context>, workers: Probe) -> Self {
        let policy = HeaderValue::try_from(policy_of(PAGE));
        Self {
            context,
            workers,
            policy: policy.unwrap_or(HeaderValue::from_static(NO_DOCUMENT)),
            metrics: Shared::for_at_most(MOMENT),
            status: Shared::for_at_most(MOMENT),
            status_with_open: Shared::for_at_most(MOMENT),
            long_answers: Arc::new(Semaphore::new(LONG_ANSWERS)),
            threads: Shared::for_at_most(MOMENT),
            target: Shared::for_at_most(TARGET),
        }
    }

    /// Answers a request.
    pub(super) async fn answer<B: Body>(&self, request: &Request<B>, arrival: Arrival) -> Answer {
        let content = match refusal(request, arrival) {
            Some(refused) => refused,
            None => self.content(request).await,
        };
        let Content(code, kind, body) = content;
        let mut answer = Response::new(Full::new(body));
        *answer.status_mut() = code;
        let is_page = code == StatusCode::OK && request.uri().path() == "/";
        let no_document = HeaderValue::from_static(NO_DOCUMENT);
        let policy = if is_page { self.policy.clone() } else { no_document };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        for (name, value) in [
            (CACHE_CONTROL, "no-store"),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let policy = HeaderName::from_static("cross-origin-resource-policy");
        headers.insert(policy, HeaderValue::from_static("same-origin"));
        if code == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if code == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        answer
    }

    async fn content<B>(&self, request: &Request<B>) -> Content {
        let query = request.uri().query().unwrap_or_default();
        let asks_for = |word: &str| query.split('&').any(|asked| asked == word);
        let verbosity = if asks_for("verbose") { Verbosity::All } else { Verbosity::None };
        let context = Arc::clone(&self.context);
        match request.uri().path() {
            "/metrics" => {
                let made = async move {
                    metrics::to_text(&context.snapshot(Detail::Summary), &Usage::now()).into()
                };
                Content(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.get(made).await)
            }
            "/status" => match connections_asked_for(query) {
                Some(Ok(most)) => self.status_with_open(context, most).await,
                Some(Err(())) => Content(StatusCode::BAD_REQUEST, TEXT, NO_NUMBER.into()),
                None => {
                    let made = async move { context.snapshot(Detail::Summary).to_json().into() };
                    Content(StatusCode::OK, JSON, self.status.get(made).await)
                }
            },
            "/livez" => {
                let threads = self.threads.get(health::threads(self.workers.clone())).await;
                report("livez", &[threads], verbosity)
            }
            "/readyz" => {
                let mut checks = health::ready(&context);
                if asks_for("target=1") {
                    checks.push(self.target.get(health::target(context)).await);
                }
                report("readyz", &checks, verbosity)
            }
            _ => Content(
                StatusCode::OK,
                "text/html; charset=utf-8",
                Bytes::from_static(PAGE.as_bytes()),
            ),
        }
    }

    /// The status with at most so many connections, those that have waited longest.
    async fn status_with_open(&self, context: Arc<Context>, most: usize) -> Content {
        let permit = if most <= FEW {
            None
        } else if let Ok(permit) = Arc::clone(&self.long_answers).try_acquire_owned() {
            Some(permit)
        } else {
            return Content(StatusCode::SERVICE_UNAVAILABLE, TEXT, TOO_MANY.into());
        };
        let made = async move {
            let mut status = context.snapshot(Detail::Connections);
            let open = status.open.take().unwrap_or_default();
            Arc::new((status, open))
        };
        let (status, open) = &*self.status_with_open.get(made).await;
        let open = open.iter().take(most).cloned().collect();
        let json = Status { open: Some(open), ..status.clone() }.to_json();
        let body = match permit {
            Some(permit) => Bytes::from_owner(LongAnswer { json, _permit: permit }),
            None => json.into(),
        };
        Content(StatusCode::OK, JSON, body)
    }
}

/// How many connections a query asks for, if it does.
fn connections_asked_for(query: &str) -> Option<Result<usize, ()>> {
    query.split('&').find_map(|word| match word.split_once('=') {
        None => (word == "connections").then_some(Ok(FEW)),
        Some(("connections", most)) => Some(most.parse().map_err(|_| ())),
        Some(_) => None,
    })
}

/// The body of a long answer, which counts until it has been sent.
struct LongAnswer {
    json: String,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for LongAnswer {
    fn as_ref(&self) -> &[u8] {
        self.json.as_bytes()
    }
}

fn report(name: &str, checks: &[Check], verbosity: Verbosity) -> Content {
    let Report { has_passed, text } = Report::of(name, checks, verbosity);
    let code = if has_passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Content(code, TEXT, text.into())
}

/// Why a request gets no content.
fn refusal<B: Body>(request: &Request<B>, arrival: Arrival) -> Option<Content> {
    let (code, why) = match host::check(request, arrival) {
        Err(HostError::NotOne) => {
            (StatusCode::BAD_REQUEST, "the request has no host, or several\n")
        }
        Err(HostError::Another) => (
            StatusCode::FORBIDDEN,
            "the request names another host: use its address, its name as hostname prints it, or \
             localhost\n",
        ),
        Ok(()) if is_of_another_site(request) => {
            (StatusCode::FORBIDDEN, "the request is made by a page of another site\n")
        }
        Ok(()) if !PATHS.contains(&request.uri().path()) => {
            (StatusCode::NOT_FOUND, "there is /, /status, /metrics, /livez and /readyz\n")
        }
        Ok(()) if ![Method::GET, Method::HEAD].contains(request.method()) => {
            (StatusCode::METHOD_NOT_ALLOWED, "there is GET and HEAD\n")
        }
        Ok(()) if !request.body().is_end_stream() => {
            (StatusCode::PAYLOAD_TOO_LARGE, "a request has no body\n")
        }
        Ok(()) => return None,
    };
    Some(Content(code, TEXT, Bytes::from_static(why.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_some_connections() {
        for (query, asked) in [
            ("", None),
            ("verbose&connectionsx", None),
            ("connections", Some(Ok(FEW))),
            ("verbose&connections=7", Some(Ok(7))),
            ("connections=-1", Some(Err(()))),
            ("connections=", Some(Err(()))),
        ] {
            assert_eq!(connections_asked_for(query), asked, "{query}");
        }
    }

    #[test]
    fn a_long_answer_counts_until_its_last_part_is_sent() {
        let all = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&all).try_acquire_owned().unwrap();
        let mut body = Bytes::from_owner(LongAnswer { json: "[1]".to_owned(), _permit: permit });
        let begin = body.split_to(1);
        drop(begin);
        assert_eq!(all.available_permits(), 0);
        drop(body);
        assert_eq!(all.available_permits(), 1);
    }
}
