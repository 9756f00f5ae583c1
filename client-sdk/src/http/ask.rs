//! A question of the client's own to its server: with its token, and once more with another if that one is refused.

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use super::{Base, Http, HttpError, Problem};
use crate::{Client, Error};

/// The status of a token that is not accepted, and its code (wire.md section 6).
const DENIED: (u16, u64) = (401, 190);

impl Client {
    /// A request; the token provider is asked again, once, when the server does not take its token. Not with a body: it may be the password
    /// in it that is refused, which is not to be tried twice.
    pub(crate) async fn ask_http(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, HttpError> {
        let http = Http::new(Base::parse(self.http_url())?, self.tls());
        let first = self.token(None).await.map_err(no_token)?;
        match send(&http, &method, path, &first, body).await {
            Err(HttpError::Refused(problem)) if problem.status == DENIED.0 && body.is_none() => {
                let next = self.token(Some(&first)).await.map_err(no_token)?;
                send(&http, &method, path, &next, None).await
            }
            outcome => outcome,
        }
    }
}

async fn send(http: &Http, method: &Method, path: &str, token: &str, body: Option<&Value>) -> Result<Bytes, HttpError> {
    let request = http.request(method.clone(), path, token);
    let (_, answer) = match body {
        Some(body) => {
            http.ask(request.header(hyper::header::CONTENT_TYPE, "application/json"), super::json(body)).await
        }
        None => http.ask(request, super::empty()).await,
    }?;
    Ok(answer)
}

fn no_token(error: Error) -> HttpError {
    match error {
        Error::Unreachable(details) => HttpError::Unreachable(details),
        other => {
            let (status, code) = DENIED;
            HttpError::Refused(Problem { status, code, details: other.to_string(), retry_after: None })
        }
    }
}
