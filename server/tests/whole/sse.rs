//! Reads server-sent events as clients do.

use serde_json::Value;

use crate::support::PATIENCE;

/// An open stream, read event by event.
pub struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    /// Opens a stream with this query.
    pub async fn open(http: &reqwest::Client, url: &str, query: &str) -> Self {
        let response = http.get(format!("{url}/evaluator/v2/flags/stream?{query}")).send().await.expect("an answer");
        Self { response, text: String::new() }
    }

    /// Name and data of the next event; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        let read = async {
            loop {
                let Some((event, rest)) = self.text.split_once("\n\n") else {
                    let chunk = self.response.chunk().await.ok()??;
                    self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
                    continue;
                };
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                let found = (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap_or_default());
                self.text = rest.to_owned();
                // Heartbeats have no name.
                if !found.0.is_empty() {
                    return Some(found);
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an event in time")
    }

    /// Data of the next event of this name; others are passed over. `None` at the end.
    pub async fn next_named(&mut self, name: &str) -> Option<Value> {
        loop {
            let (found, data) = self.next().await?;
            if found == name {
                return Some(data);
            }
        }
    }
}
