//! The one binary: reads its configuration, does what the subcommand says, and ends with a status that says how it went.

mod allocator;
mod audit;
mod configuration;
mod demo;
mod evaluate;
mod exit;
mod installation;
mod limits;
mod load;
mod migrate;
mod options;
mod piece;
mod postgres;
mod role;
mod runtimes;
mod show;
mod telemetry;
mod up;

use std::process::ExitCode;

use crate::configuration::Configuration;
use crate::exit::Failure;
use crate::options::{Command, ConfigAction};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("flagmint: {failure}");
            failure.exit_code()
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.len() == 1 {
        arguments.push("up".into());
    }
    let mut configuration = Configuration::read(arguments)?;
    let Some(command) = configuration.options.command.take() else {
        return Err(Failure::Usage("say a command: `flagmint --help` lists them".into()));
    };
    telemetry::logs(&configuration.options)?;
    match command {
        Command::Up(options) => up::up(options),
        Command::Evaluator(options) => role::evaluator(options),
        Command::Aggregator(options) => role::aggregator(options),
        Command::QueryApi(options) => role::query_api(options),
        Command::ControlPlane(options) => role::control_plane(options),
        Command::Demo(options) => demo::demo(options),
        Command::Load(options) => load::load(&options),
        Command::Evaluate(options) => evaluate::evaluate(&options),
        Command::Audit(options) => audit::audit(&options),
        Command::Migrate(options) => migrate::migrate(&options),
        Command::MigrateData(options) => migrate::data(&options),
        Command::Config { action: ConfigAction::Print(_) } => show::print(&configuration),
        Command::Config { action: ConfigAction::Check(options) } => show::check(&options),
    }
}
