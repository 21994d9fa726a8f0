//! Counts what the data plane refused, by status, for the process metrics.

use axum::response::Response;

/// Counts a reply that is an error.
pub fn count(response: Response) -> Response {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        metrics::counter!("flagmint_evaluator_refused_total", "status" => status.as_str().to_owned()).increment(1);
    }
    response
}
