//! The management API as the demo uses it: signed in, one call at a time, errors that say which call failed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::exit::Failure;

/// Access tokens live 15 minutes; sign in again well before.
const SIGN_IN_AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

/// A signed-in client.
#[derive(Clone)]
pub struct Management {
    http: reqwest::Client,
    base: String,
    email: String,
    password: String,
    token: String,
    signed_in: Instant,
}

impl Management {
    /// Signs in at `base`, such as `http://127.0.0.1:3000`.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn sign_in(base: &str, email: &str, password: &str) -> Result<Self, Failure> {
        let mut management = Self {
            http: reqwest::Client::new(),
            base: base.to_owned(),
            email: email.to_owned(),
            password: password.to_owned(),
            token: String::new(),
            signed_in: Instant::now(),
        };
        management.renew().await?;
        Ok(management)
    }

    async fn renew(&mut self) -> Result<(), Failure> {
        let ask = json!({ "email": self.email, "password": self.password });
        let answer = self.send(self.http.post(format!("{}/users/login", self.base)).json(&ask), "/users/login").await?;
        self.token = text(&answer["data"], "accessToken")?;
        self.signed_in = Instant::now();
        Ok(())
    }

    /// The access token in use.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// `GET`, the whole reply.
    pub async fn get(&mut self, path: &str) -> Result<Value, Failure> {
        if self.signed_in.elapsed() > SIGN_IN_AGAIN_AFTER {
            self.renew().await?;
        }
        self.send(self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token), path).await
    }

    /// `POST`, the reply's `data`.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token).json(body);
        Ok(self.send(request, path).await?["data"].take())
    }

    /// `PUT`, the reply's `data`.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.put(format!("{}{path}", self.base)).bearer_auth(&self.token).json(body);
        Ok(self.send(request, path).await?["data"].take())
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        let request = self.http.delete(format!("{}{path}", self.base)).bearer_auth(&self.token);
        self.send(request, path).await.map(|_| ())
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> Result<Value, Failure> {
        let answer = request.send().await.map_err(|error| Failure::resource(path, error))?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| Failure::resource(path, error))?;
        if !status.is_success() {
            return Err(Failure::DoesNotHold(format!("{path} answered {status}: {body}")));
        }
        serde_json::from_str(&body).map_err(|error| Failure::DoesNotHold(format!("{path} answered no JSON: {error}")))
    }
}

/// A text member of a reply.
///
/// # Errors
/// If it is not there.
pub fn text(value: &Value, member: &str) -> Result<String, Failure> {
    let found = value[member].as_str().map(str::to_owned);
    found.ok_or_else(|| Failure::DoesNotHold(format!("a reply lacks {member}: {value}")))
}
