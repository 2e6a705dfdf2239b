//! `auth`: how a gateway shows who it is beside its certificate, as an MQTT user name and password.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::token;
use crate::clock::Clock;
use crate::tls::{self, Signer};
use crate::units;
use crate::uplink::LinkError;

/// The longest user name and password, in bytes: MQTT 3.1.1 and 5, 1.5.
const TEXT_MAX: usize = 65_535;

/// The most that claims may come to as JSON, in bytes. A token of it is well below [`TEXT_MAX`].
const CLAIMS_MAX: usize = 16 * 1024;

/// How long a token may hold. `forward` takes a session that is renewed within 10 s for one that fails.
const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(20)..=Duration::from_secs(24 * 3600);

/// When in its lifetime a token is renewed: evenly spread over these shares of it, so that ten thousand gateways that
/// came at once do not come at once again. The rest is for what is on its way.
const RENEWED: std::ops::Range<f64> = 0.6..0.8;

/// `auth`, by its `type`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    /// A password.
    Password(Password),
    /// A token, signed anew for every connection.
    Jwt(Jwt),
}

/// `auth` with `type = "password"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The user name.
    pub username: String,
    /// The file that holds the password, read for every connection.
    pub password_file: PathBuf,
}

/// `auth` with `type = "jwt"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The user name.
    pub username: String,
    /// The private key: PKCS#8, SEC1 or PKCS#1, without a passphrase. Read for every connection.
    pub key: PathBuf,
    /// How it signs.
    pub algorithm: tls::Algorithm,
    /// How long a token holds; 20 s to a day.
    #[serde(default = "default_lifetime", deserialize_with = "units::duration")]
    pub lifetime: Duration,
    /// What the token says beside `iat` and `exp`.
    #[serde(default)]
    pub claims: Map<String, Value>,
}

fn default_lifetime() -> Duration {
    Duration::from_secs(3600)
}

/// What a CONNECT says. It has no `Debug`, so that a password gets into no log.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
    /// How long until another should be had, where it ends by itself.
    pub(super) renew_in: Option<Duration>,
}

impl Auth {
    /// What the broker is shown by, for messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Password(_) => "the password in `auth.password_file`",
            Self::Jwt(_) => "the token signed with `auth.key`",
        }
    }

    /// What it is, for a person. The user name may be a secret.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Password(Password { password_file, .. }) => {
                format!("the password in {}", password_file.display())
            }
            Self::Jwt(Jwt { key, algorithm, lifetime, .. }) => {
                let (key, name, lifetime) = (key.display(), algorithm.name(), units::show(*lifetime));
                format!("a token signed with {key} ({name}, for {lifetime})")
            }
        }
    }

    /// A user name and password for one connection.
    pub(super) fn login(&self, clock: &Clock) -> Result<Login, LinkError> {
        match self {
            Self::Password(Password { username, password_file }) => Ok(Login {
                username: username.clone(),
                password: tls::secret(password_file, "password", TEXT_MAX)?,
                renew_in: None,
            }),
            Self::Jwt(jwt) => {
                let now = clock.now();
                if !now.synced {
                    return Err(LinkError {
                        what: "the clock is not set, and a token has to say when it was signed".to_owned(),
                        hint: Some(
                            "weir connects once the clock is synchronised (see `timedatectl`); where there is a \
                             battery-backed one, set `trust = \"rtc\"` under [clock]"
                                .to_owned(),
                        ),
                    });
                }
                let signer = Signer::read(&jwt.key, jwt.algorithm)?;
                let from = now.wall.0.div_euclid(1000);
                let lifetime = i64::try_from(jwt.lifetime.as_secs()).unwrap_or(i64::MAX);
                let until = from.saturating_add(lifetime);
                let password = token::token(&signer, jwt.algorithm, &jwt.claims, from, until)?;
                let renew_in = Some(renewal(jwt.lifetime, fastrand::f64()));
                Ok(Login { username: jwt.username.clone(), password, renew_in })
            }
        }
    }

    fn file(&self) -> (&'static str, &Path) {
        match self {
            Self::Password(password) => ("auth.password_file", &password.password_file),
            Self::Jwt(jwt) => ("auth.key", &jwt.key),
        }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let username = match self {
            Self::Password(Password { username, .. }) | Self::Jwt(Jwt { username, .. }) => username,
        };
        if username.is_empty() || username.len() > TEXT_MAX || username.contains(char::is_control) {
            problems.push((
                "auth.username",
                "a user name is 1 to 65535 bytes without control characters".to_owned(),
            ));
        }
        if let Self::Jwt(Jwt { lifetime, claims, .. }) = self {
            if !LIFETIMES.contains(lifetime) {
                problems.push(("auth.lifetime", "must be between \"20s\" and \"24h\"".to_owned()));
            }
            if let Some(own) = token::OWN_CLAIMS.iter().find(|own| claims.contains_key(**own)) {
                problems.push(("auth.claims", format!("leave `{own}` out: weir sets it in every token")));
            }
            if Value::Object(claims.clone()).to_string().len() > CLAIMS_MAX {
                problems.push(("auth.claims", format!("they are longer than {CLAIMS_MAX} bytes of JSON")));
            }
        }
        problems
    }

    /// That the file is not there, which may come later.
    pub(super) fn absent(&self) -> Option<(&'static str, String)> {
        let (key, path) = self.file();
        (!path.exists()).then(|| (key, format!("{} is not there yet", path.display())))
    }

    /// What is wrong with the file, where it is there.
    pub(super) fn unfit(&self) -> Option<(&'static str, tls::Error)> {
        let (key, path) = self.file();
        if !path.exists() {
            return None;
        }
        let error = match self {
            Self::Password(password) => tls::secret(&password.password_file, "password", TEXT_MAX).err(),
            Self::Jwt(jwt) => Signer::read(&jwt.key, jwt.algorithm).err(),
        };
        error.map(|error| (key, error))
    }
}

/// When to renew a token that holds for `lifetime`; `chance` is from 0 to 1.
fn renewal(lifetime: Duration, chance: f64) -> Duration {
    lifetime.mul_f64(RENEWED.start + (RENEWED.end - RENEWED.start) * chance)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::Timestamp;

    fn auth(toml: &str) -> Auth {
        toml::from_str(toml).unwrap()
    }

    const JWT: &str = "type = 'jwt'\nusername = 'gw'\nkey = '/no/token.key'\nalgorithm = 'ES256'\n";

    #[test]
    fn a_password_is_read_from_its_file_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let auth = auth(&format!("type = 'password'\nusername = 'gw'\npassword_file = '{}'", path.display()));
        let clock = Clock::injected(Timestamp(0), false);
        assert_eq!(auth.problems(), []);
        assert_eq!(auth.absent().unwrap().0, "auth.password_file");
        for password in ["hunter2", "hunter3"] {
            fs::write(&path, format!("{password}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let Ok(login) = auth.login(&clock) else { panic!("refused") };
            assert_eq!((&*login.username, &*login.password, login.renew_in), ("gw", password, None));
        }
        assert_eq!((auth.absent(), auth.unfit()), (None, None));
        assert!(!format!("{auth:?}").contains("hunter"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(auth.unfit().unwrap().1.what.contains("is open to everyone"));
    }

    #[test]
    fn a_token_waits_for_the_clock_and_says_so() {
        let Err(error) = auth(JWT).login(&Clock::injected(Timestamp(0), false)) else { panic!("signed") };
        assert!(error.what.contains("the clock is not set"), "{error}");
        let Err(error) = auth(JWT).login(&Clock::injected(Timestamp(0), true)) else { panic!("signed") };
        assert!(error.what.contains("/no/token.key is not there"), "{error}");
    }

    #[test]
    fn tokens_are_renewed_at_different_times_and_well_before_they_end() {
        let hour = Duration::from_secs(3600);
        assert_eq!(renewal(hour, 0.0), hour.mul_f64(0.6));
        assert_eq!(renewal(hour, 1.0), hour.mul_f64(0.8));
        assert!(renewal(hour, 0.3) < renewal(hour, 0.4));
    }

    #[test]
    fn every_value_that_makes_no_sense_is_told_with_its_key() {
        assert_eq!(auth(JWT).problems(), []);
        let Auth::Jwt(jwt) = auth(JWT) else { panic!("no jwt") };
        assert_eq!(jwt.lifetime, Duration::from_secs(3600));
        let keys = |toml: &str| -> Vec<_> { auth(toml).problems().into_iter().map(|(key, _)| key).collect() };
        assert_eq!(keys(&JWT.replace("'gw'", "''")), ["auth.username"]);
        assert_eq!(
            keys(&format!("{JWT}lifetime = '19s'\nclaims = {{ exp = 1 }}")),
            ["auth.lifetime", "auth.claims"]
        );
        assert_eq!(keys(&format!("{JWT}lifetime = '25h'")), ["auth.lifetime"]);
        assert_eq!(keys(&format!("{JWT}claims = {{ a = '{}' }}", "x".repeat(CLAIMS_MAX))), ["auth.claims"]);
        let unknown: Result<Auth, _> = toml::from_str(&JWT.replace("ES256", "HS256"));
        assert!(unknown.unwrap_err().to_string().contains("RS256"));
    }
}
