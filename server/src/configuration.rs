//! Where option values come from: option, environment, file, default, in this order of precedence.
//!
//! The file and the environment become defaults of the options, so that every value is parsed and checked in one
//! place, and so that every option can be said in each of the three ways.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command as Clap, CommandFactory as _, FromArgMatches as _};
use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use figment::value::Value;

use crate::exit::Failure;
use crate::options::Options;

const FILE: &str = "flagmint.toml";
const PREFIX: &str = "FLAGMINT_";

/// Variables with our prefix that are no options: they steer builds and tests.
const NOT_OPTIONS: [&str; 4] = ["test_", "postgres_bundle", "config_file", "failpoint"];

/// Options whose values are never shown.
const SECRETS: [&str; 7] = [
    "rate_limit_bypass_token",
    "key",
    "access_token",
    "postgres",
    "clickhouse",
    "clickhouse_password",
    "kafka_property",
];

/// Options that may be said several times, and what parts their values in a variable; a file has a list.
const LISTS: [(&str, &str); 1] = [("kafka_property", ";")];

/// A value said outside of the command line.
#[derive(Clone, Debug)]
struct Said {
    text: String,
    source: String,
}

/// Parsed options and where each value came from.
pub struct Configuration {
    /// The options.
    pub options: Options,
    matches: ArgMatches,
    said: BTreeMap<String, Said>,
}

impl Configuration {
    /// Reads the file and the environment, then the command line over them.
    ///
    /// # Errors
    /// If the file cannot be read or something names no option. Errors of the command line itself end the process as
    /// clap does: with their text and status 2 (or 0 for `--help`).
    pub fn read(arguments: Vec<std::ffi::OsString>) -> Result<Self, Failure> {
        let file = file_path(&arguments)?;
        let said = said(file.as_deref(), &known_names(&Options::command()))?;
        let command = with_defaults(Options::command(), &said);
        let matches = command.try_get_matches_from(arguments).unwrap_or_else(|error| error.exit());
        let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        Ok(Self { options, matches, said })
    }

    /// Every option of the innermost subcommand: name, value as text, source. Secrets are hidden.
    #[must_use]
    pub fn table(&self) -> Vec<(String, String, String)> {
        let mut matches = &self.matches;
        let mut rows = Vec::new();
        loop {
            for id in matches.ids().filter(|id| id.as_str().starts_with(|c: char| c.is_ascii_lowercase())) {
                rows.push(self.row(matches, id.as_str()));
            }
            match matches.subcommand() {
                Some((_, inner)) => matches = inner,
                None => break,
            }
        }
        rows.sort();
        rows.dedup_by(|a, b| a.0 == b.0);
        rows
    }

    fn row(&self, matches: &ArgMatches, name: &str) -> (String, String, String) {
        let texts: Vec<String> = matches
            .get_raw(name)
            .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let source = match (matches.value_source(name), self.said.get(name)) {
            (Some(ValueSource::CommandLine), _) => "option".to_owned(),
            (_, Some(said)) => said.source.clone(),
            _ => "default".to_owned(),
        };
        let text = if SECRETS.contains(&name) { "(hidden)".to_owned() } else { texts.join(",") };
        (name.to_owned(), text, source)
    }
}

/// The file named on the command line or by `FLAGMINT_CONFIG_FILE`, else `flagmint.toml` if it is there.
fn file_path(arguments: &[std::ffi::OsString]) -> Result<Option<PathBuf>, Failure> {
    let after = arguments.iter().skip_while(|argument| *argument != "--config-file").nth(1).map(PathBuf::from);
    let joined =
        arguments.iter().find_map(|argument| Some(PathBuf::from(argument.to_str()?.strip_prefix("--config-file=")?)));
    let named = after.or(joined).or_else(|| std::env::var_os("FLAGMINT_CONFIG_FILE").map(PathBuf::from));
    match named {
        Some(path) if !path.is_file() => {
            Err(Failure::Usage(format!("configuration file {} is not there", path.display())))
        }
        Some(path) => Ok(Some(path)),
        None => Ok(Some(PathBuf::from(FILE)).filter(|path| path.is_file())),
    }
}

fn known_names(command: &Clap) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long()).map(|long| long.replace('-', "_"));
    own.chain(command.get_subcommands().flat_map(known_names))
        .filter(|name| name != "help" && name != "version")
        .collect()
}

fn said(file: Option<&Path>, known: &BTreeSet<String>) -> Result<BTreeMap<String, Said>, Failure> {
    let mut said = BTreeMap::new();
    if let Some(path) = file {
        let source = path.display().to_string();
        read_into(&mut said, Figment::from(Toml::file_exact(path)), &source, known)?;
    }
    let environment = Env::prefixed(PREFIX)
        .filter(|name| !NOT_OPTIONS.iter().any(|other| name.as_str().to_ascii_lowercase().starts_with(other)));
    read_into(&mut said, Figment::from(environment), "environment", known)?;
    Ok(said)
}

fn read_into(
    said: &mut BTreeMap<String, Said>,
    figment: Figment,
    source: &str,
    known: &BTreeSet<String>,
) -> Result<(), Failure> {
    let members: BTreeMap<String, Value> =
        figment.extract().map_err(|error| Failure::Usage(format!("{source}: {error}")))?;
    for (name, value) in members {
        let name = name.to_ascii_lowercase().replace('-', "_");
        if !known.contains(&name) {
            return Err(Failure::Usage(format!("{source}: {name} is not an option{}", nearest(&name, known))));
        }
        let list = LISTS.iter().find(|(list, _)| *list == name);
        let text = match (&value, list) {
            (Value::Array(_, values), Some((_, separator))) => {
                values.iter().map(text_of).collect::<Option<Vec<_>>>().map(|texts| texts.join(separator))
            }
            _ => text_of(&value),
        };
        let text = text.ok_or_else(|| Failure::Usage(format!("{source}: {name} must be one value")))?;
        said.insert(name, Said { text, source: source.to_owned() });
    }
    Ok(())
}

fn nearest(name: &str, known: &BTreeSet<String>) -> String {
    let best = known.iter().map(|other| (strsim::jaro_winkler(name, other), other)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score > 0.7).map(|(_, other)| format!("; did you mean {other}?")).unwrap_or_default()
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, c) => Some(c.to_string()),
        Value::Bool(_, b) => Some(b.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string())),
        _ => None,
    }
}

/// Makes what was said outside the default of each option of that name, at every level.
fn with_defaults(command: Clap, said: &BTreeMap<String, Said>) -> Clap {
    let command = command.mut_args(|argument| {
        let name = argument.get_long().map(|long| long.replace('-', "_")).unwrap_or_default();
        match said.get(&name) {
            // A switch in a file or variable is on when it says true.
            Some(said) if !argument.get_action().takes_values() => argument.default_value(said.text.clone()),
            Some(said) => argument.default_value(said.text.clone()).required(false),
            None => argument,
        }
    });
    command.mut_subcommands(|inner| with_defaults(inner, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str, expected: Result<&str, &str>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flagmint.toml");
        std::fs::write(&path, toml).unwrap();
        let found = said(Some(&path), &known_names(&Options::command()))
            .map(|said| said.get("listen").map(|said| said.text.clone()).unwrap_or_default());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, _) => panic!("{toml}: {found:?}"),
        }
    }

    #[test]
    fn files_name_options_or_are_refused() {
        check("listen = \"127.0.0.1:1\"", Ok("127.0.0.1:1"));
        check("rate = 5", Ok(""));
        check("lisen = \"x\"", Err("lisen is not an option; did you mean listen?"));
        check("listen = [1]", Err("listen must be one value"));
        check("listen = ", Err("flagmint.toml"));
        check("kafka_property = [\"a=b\", \"c=d\"]", Ok(""));
        check("kafka_property = [[\"a\"]]", Err("kafka_property must be one value"));
    }

    #[test]
    fn a_list_in_a_file_or_variable_is_one_of_several_values() {
        let text = "a=b;c=d".to_owned();
        let said = BTreeMap::from([("kafka_property".to_owned(), Said { text, source: "x".into() })]);
        let properties = |arguments: &[&str]| {
            let matches = with_defaults(Options::command(), &said).get_matches_from(arguments);
            let (_, up) = matches.subcommand().unwrap();
            up.get_many::<String>("kafka_property").unwrap().cloned().collect::<Vec<_>>()
        };
        assert_eq!(properties(&["flagmint", "up"]), ["a=b", "c=d"]);
        assert_eq!(properties(&["flagmint", "aggregator", "--kafka-property", "e=f"]), ["e=f"]);
    }

    #[test]
    fn the_command_line_wins() {
        let said = BTreeMap::from([("listen".to_owned(), Said { text: "127.0.0.1:1".into(), source: "x".into() })]);
        let listen = |arguments: &[&str]| {
            let matches = with_defaults(Options::command(), &said).get_matches_from(arguments);
            let (_, up) = matches.subcommand().unwrap();
            up.get_one::<std::net::SocketAddr>("listen").unwrap().port()
        };
        assert_eq!(listen(&["flagmint", "up"]), 1);
        assert_eq!(listen(&["flagmint", "up", "--listen", "127.0.0.1:2"]), 2);
    }
}
