//! What every handler shares: the pool, settings, limiters and the meter's inlet.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::{OnceCell, mpsc};
use uuid::Uuid;

use crate::db::{Pool, query_scalar};
use crate::error::ApiError;
use crate::limits::{LOGINS_PER_MINUTE, REQUESTS_PER_MINUTE};
use crate::password::Passwords;
use crate::rate::SlidingWindow;
use crate::token::{TokenKeys, text_hash};

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long an access token is good for.
    pub access_token_lifetime: Duration,
    /// How long a refresh token is good for.
    pub refresh_token_lifetime: Duration,
    /// Whether `X-Forwarded-For` is set by a proxy of ours. If not, it is ignored.
    pub trust_proxy: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 24 * 60 * 60);
        Self {
            access_token_lifetime: Duration::from_secs(15 * 60),
            refresh_token_lifetime: days(30),
            trust_proxy: false,
        }
    }
}

/// A management write that counts as one API call (data plane 10.1). Sent after its transaction has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeteredWrite {
    /// Whose call it is.
    pub organization_id: Uuid,
    /// Where it was.
    pub project_id: Uuid,
    /// Where it was, if in one environment alone.
    pub environment_id: Option<Uuid>,
    /// When it was answered.
    pub at: DateTime<Utc>,
}

/// The control plane's state; cloning is cheap and shares everything.
#[derive(Debug, Clone)]
pub struct ControlPlane(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    settings: Settings,
    metered: Option<mpsc::Sender<MeteredWrite>>,
    token_keys: OnceCell<TokenKeys>,
    passwords: Passwords,
    logins: SlidingWindow<(IpAddr, [u8; 16])>,
    requests: SlidingWindow<Uuid>,
}

impl ControlPlane {
    /// A control plane on `pool`, whose database is migrated before the first request. Nothing is read yet, so Postgres
    /// may be away. Counted writes go to `metered`; when that is full they are counted in
    /// `flagmint_control_plane_metered_writes_dropped_total` instead, as a write never waits for its meter.
    pub fn new(pool: Pool, settings: Settings, metered: Option<mpsc::Sender<MeteredWrite>>) -> Self {
        let now = Instant::now();
        Self(Arc::new(Inner {
            pool,
            settings,
            metered,
            token_keys: OnceCell::new(),
            passwords: Passwords::default(),
            logins: SlidingWindow::per_minute(LOGINS_PER_MINUTE, now),
            requests: SlidingWindow::per_minute(REQUESTS_PER_MINUTE, now),
        }))
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(crate) async fn token_keys(&self) -> Result<&TokenKeys, ApiError> {
        let read = || async {
            let secret: Vec<u8> =
                query_scalar("SELECT access_token_secret FROM installation").fetch_one(self.pool()).await?;
            Ok::<_, ApiError>(TokenKeys::new(&secret))
        };
        self.0.token_keys.get_or_try_init(read).await
    }

    pub(crate) fn admit_login(&self, ip: IpAddr, email: &str) -> Result<(), ApiError> {
        // A digest, so that long addresses take no more memory than short ones.
        let mut digest = [0; 16];
        digest.copy_from_slice(&text_hash(email)[..16]);
        self.0.logins.admit((ip, digest), Instant::now()).map_err(ApiError::RateLimited)
    }

    pub(crate) fn admit_request(&self, user: Uuid) -> Result<(), ApiError> {
        self.0.requests.admit(user, Instant::now()).map_err(ApiError::RateLimited)
    }

    pub(crate) fn meter(&self, organization_id: Uuid, project_id: Uuid, environment_id: Option<Uuid>) {
        let Some(sender) = &self.0.metered else { return };
        let write = MeteredWrite { organization_id, project_id, environment_id, at: Utc::now() };
        if sender.try_send(write).is_err() {
            metrics::counter!("flagmint_control_plane_metered_writes_dropped_total").increment(1);
        }
    }
}
