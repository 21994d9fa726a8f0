//! The OpenAPI document of a process: what its services say, with the replies that any operation may give.

use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

/// The document.
pub fn document(of_services: OpenApi) -> Value {
    let mut document = serde_json::to_value(of_services).unwrap_or_default();
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()) {
        let takes_a_body = operation.get("requestBody").is_some();
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        let mut may = |status: &str, description: &str| {
            responses.entry(status).or_insert_with(|| json!({ "description": description }));
        };
        may("429", "Too many requests; Retry-After says in how many seconds to ask again");
        may("503", "Not able to answer now");
        if takes_a_body {
            may("408", "The body did not come in time");
            may("413", "The body is too large");
            may("415", "The body is not of a type that is understood");
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_that_it_may_be_too_many() {
        let mut services = flagmint_control_plane::openapi();
        services.merge(flagmint_evaluator::http::openapi());
        let document = document(services);
        let login = &document["paths"]["/users/login"]["post"]["responses"];
        assert!(login["200"].is_object() && login["415"].is_object() && login["429"].is_object(), "{login}");
        let ofrep = &document["paths"]["/ofrep/v1/evaluate/flags/{key}"]["post"]["responses"];
        assert!(ofrep["429"]["description"].as_str().is_some_and(|text| text.contains("QUOTA_EXCEEDED")), "{ofrep}");
    }
}
