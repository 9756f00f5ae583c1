//! Tokens of HTTP requests.

use std::future::Future;
use std::pin::Pin;

use crate::Client;

/// Why there is no token: the app's own words.
type TokenError = Box<dyn std::error::Error + Send + Sync>;
/// A token to come.
pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Where tokens come from. `refused` is one that the server did not take.
pub(crate) trait Tokens: Send + Sync {
    /// A token for the next request.
    fn token(&self, refused: Option<String>) -> TokenFuture;
}

/// A token that stays.
pub(crate) struct Fixed(pub(crate) String);

impl Tokens for Fixed {
    fn token(&self, refused: Option<String>) -> TokenFuture {
        let token = self.0.clone();
        Box::pin(async move {
            match refused {
                Some(refused) if refused == token => Err("the token is refused, and there is no other".into()),
                _ => Ok(token),
            }
        })
    }
}

/// Those that the client uses itself.
pub(crate) struct OfClient(pub(crate) Client);

impl Tokens for OfClient {
    fn token(&self, refused: Option<String>) -> TokenFuture {
        let client = self.0.clone();
        Box::pin(async move { client.token(refused.as_deref()).await.map_err(Into::into) })
    }
}
