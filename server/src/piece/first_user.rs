//! The first user of an empty installation: said by options, or made up and told once.

use std::path::Path;

use flagmint_control_plane::{PlanChoice, Pool, bootstrap_admin};
use rand::Rng as _;
use rand::distr::Alphanumeric;

use crate::exit::Failure;
use crate::options::FirstUserOptions;

const PASSWORD_CHARS: usize = 24;

/// Mail address and password of the first user, and the organization made with it.
pub struct FirstUser {
    /// Mail address.
    pub email: String,
    /// Password.
    pub password: String,
    organization: &'static str,
    told: bool,
}

impl FirstUser {
    /// As the options say; without a password file one is made up.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of(options: &FirstUserOptions) -> Result<Self, Failure> {
        let given = options.admin_password_file.as_deref().map(read_password).transpose()?;
        Ok(Self {
            email: options.admin_email.clone(),
            told: given.is_none(),
            password: given.unwrap_or_else(made_up),
            organization: "My organization",
        })
    }

    /// The demo's: its password is kept in the data directory, so that a later run can sign in again.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn demo(data_dir: &Path) -> Result<Self, Failure> {
        let path = data_dir.join("demo-password");
        let refuse = |error| Failure::resource(path.display(), error);
        let password = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let password = made_up();
                std::fs::create_dir_all(data_dir).map_err(refuse)?;
                write_private(&path, &password).map_err(refuse)?;
                password
            }
            Err(error) => return Err(refuse(error)),
        };
        let email = "demo@flagmint.example".to_owned();
        Ok(Self { email, password, organization: "Sample organization", told: false })
    }

    /// Makes the user if there is none.
    ///
    /// # Errors
    /// If Postgres or the control plane refuses.
    pub async fn create(&self, pool: &Pool) -> Result<(), Failure> {
        let made = bootstrap_admin(pool, &self.email, &self.password, self.organization, PlanChoice::Unlimited)
            .await
            .map_err(|error| Failure::Usage(error.to_string()))?;
        if made.is_some() && self.told {
            eprintln!("first user: {}  password: {}  (shown once)", self.email, self.password);
        }
        Ok(())
    }
}

fn read_password(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("--admin-password-file {}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn made_up() -> String {
    rand::rng().sample_iter(Alphanumeric).take(PASSWORD_CHARS).map(char::from).collect()
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
