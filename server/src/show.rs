//! `flagmint config print` and `flagmint config check`.

use crate::configuration::Configuration;
use crate::exit::Failure;
use crate::installation;
use crate::options::UpOptions;

/// Prints every option, its value and where the value came from.
///
/// # Errors
/// None.
pub fn print(configuration: &Configuration) -> Result<(), Failure> {
    let rows = configuration.table();
    let width = |of: fn(&(String, String, String)) -> usize| rows.iter().map(of).max().unwrap_or_default();
    let (names, values) = (width(|row| row.0.len()), width(|row| row.1.len()));
    for (name, value, source) in &rows {
        println!("{name:names$}  {value:values$}  # {source}");
    }
    Ok(())
}

/// Says whether a server could be started with these options.
///
/// # Errors
/// Naming what is wrong.
pub fn check(options: &UpOptions) -> Result<(), Failure> {
    installation::check(options)?;
    println!("the configuration is valid");
    Ok(())
}
