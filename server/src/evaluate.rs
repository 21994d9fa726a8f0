//! `flagmint evaluate`: decides flags read from standard input, one JSON object a line in and out.

use std::io::{BufRead as _, Write as _};

use flagmint_evaluator::engine::{CompiledEnvironment, evaluate_flag_line, evaluate_line};
use flagmint_evaluator::snapshot::Configuration;
use flagmint_log::wall_clock_us;
use serde_json::json;

use crate::exit::Failure;
use crate::options::EvaluateOptions;

/// Reads lines until the end of input. Blank lines are skipped.
///
/// # Errors
/// If the configuration cannot be read, or any line was not usable.
pub fn evaluate(options: &EvaluateOptions) -> Result<(), Failure> {
    let environment = options.config.as_deref().map(read_environment).transpose()?;
    let mut unusable = 0;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (number, line) in std::io::stdin().lock().split(b'\n').enumerate() {
        let line = line.map_err(|error| Failure::resource("standard input", error))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let result =
            std::str::from_utf8(&line).map_err(|error| format!("not UTF-8: {error}")).and_then(
                |line| match &environment {
                    Some(environment) => evaluate_flag_line(environment, line, wall_clock_us()),
                    None => evaluate_line(line, wall_clock_us()),
                },
            );
        let text = result.unwrap_or_else(|error| {
            unusable += 1;
            json!({ "line": number + 1, "error": error }).to_string()
        });
        writeln!(out, "{text}").map_err(|error| Failure::resource("standard output", error))?;
    }
    out.flush().map_err(|error| Failure::resource("standard output", error))?;
    if unusable > 0 { Err(Failure::DoesNotHold(format!("{unusable} lines were not usable"))) } else { Ok(()) }
}

fn read_environment(path: &std::path::Path) -> Result<CompiledEnvironment, Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
    let configuration = Configuration::parse(&text).map_err(|error| refuse(&error))?;
    Ok(CompiledEnvironment::compile(&configuration.flags, &configuration.segments))
}
