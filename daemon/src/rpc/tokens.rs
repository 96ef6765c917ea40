//! Who may call: three tokens, one per scope, in files that only the daemon's user may read. A token is taken back by
//! removing or replacing its file, also while the daemon runs.

use std::{
    convert::Infallible,
    fmt,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::datadir::{DataDirError, check_private, write_atomically};

const TOKEN_BYTES: usize = 32;
/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a token allows. Each scope allows all that the ones before it allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To look.
    Read,
    /// To pay in channels that are open.
    Pay,
    /// Everything: the wallet's money, opening and closing channels, stopping the daemon.
    Admin,
}

impl Scope {
    /// All scopes, rising.
    pub const ALL: [Self; 3] = [Self::Read, Self::Pay, Self::Admin];

    /// The name, which is also the file's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pay => "pay",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The tokens that the daemon knows.
pub struct Tokens {
    dir: PathBuf,
    known: RwLock<[Known; 3]>,
    ended: CancellationToken,
}

/// A token, or that there is none that can be used.
struct Known {
    scope: Scope,
    token: Option<Zeroizing<String>>,
    ended: CancellationToken,
}

/// What a caller is let in with.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    /// What the token allows.
    pub(super) scope: Scope,
    /// Cancelled when the token is taken back or the daemon stops: answers that go on for ever end then.
    pub(super) ended: CancellationToken,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(hidden)")
    }
}

/// The file of the token with this scope in the data directory `dir`.
pub fn token_path(dir: &Path, scope: Scope) -> PathBuf {
    dir.join("tokens").join(scope.name())
}

/// Reads the token with this scope in the data directory `dir`; if there is none, makes it.
fn open(dir: &Path, scope: Scope) -> Result<Zeroizing<String>, DataDirError> {
    let folder = dir.join("tokens");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(DataDirError::io(&folder))?;
    check_private(&folder, "700")?;
    let path = token_path(dir, scope);
    if !path.exists() {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        getrandom::fill(bytes.as_mut())
            .map_err(|error| DataDirError::io(&path)(io::Error::other(error.to_string())))?;
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(*bytes))));
        write_atomically(&path, text.as_bytes())?;
    }
    read_token(dir, scope)
}

/// Reads the token with this scope in the data directory `dir`.
///
/// # Errors
/// [`DataDirError`]: missing, readable by others, or not a token.
pub fn read_token(dir: &Path, scope: Scope) -> Result<Zeroizing<String>, DataDirError> {
    let path = token_path(dir, scope);
    check_private(&path, "600")?;
    let text = Zeroizing::new(fs::read_to_string(&path).map_err(DataDirError::io(&path))?);
    let token = text.trim();
    if hex::decode(token).map_or(0, |bytes| bytes.len()) != TOKEN_BYTES {
        let reason = "is not a token. Remove the file; the daemon makes a new token";
        return Err(DataDirError::io(&path)(io::Error::new(io::ErrorKind::InvalidData, reason)));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

impl Tokens {
    /// Reads the tokens of the data directory `dir` and makes those that are missing.
    ///
    /// # Errors
    /// [`DataDirError`]: readable by others, not a token, or the disk failed.
    pub fn open(dir: &Path) -> Result<Self, DataDirError> {
        let ended = CancellationToken::new();
        let open = |scope: Scope| -> Result<_, DataDirError> {
            Ok(Known { scope, token: Some(open(dir, scope)?), ended: ended.child_token() })
        };
        let known = RwLock::new([open(Scope::Read)?, open(Scope::Pay)?, open(Scope::Admin)?]);
        Ok(Self { dir: dir.to_owned(), known, ended })
    }

    /// To be cancelled when the daemon stops: no token is worth anything then.
    pub(super) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The scope of a token, `None` if it is not known.
    pub fn scope(&self, token: &str) -> Option<Scope> {
        self.admit(token).map(|admitted| admitted.scope)
    }

    /// What a token is good for, `None` if it is not known. Takes as long whichever token it is, and
    /// however many of its digits are right.
    pub(super) fn admit(&self, token: &str) -> Option<Admitted> {
        // 0 is no token; otherwise one more than the place in the list.
        let mut found = 0_u8;
        let all = self.known.read().unwrap_or_else(PoisonError::into_inner);
        for (place, known) in (1_u8..).zip(all.iter()) {
            let known = known.token.as_ref().map_or(&[][..], |known| known.as_bytes());
            let same: Choice = known.ct_eq(token.as_bytes()) & Choice::from(u8::from(!known.is_empty()));
            found.conditional_assign(&place, same);
        }
        let place = usize::from(found).checked_sub(1)?;
        all.get(place).map(|known| Admitted { scope: known.scope, ended: known.ended.clone() })
    }

    /// Looks at the files from time to time. A token whose file is gone or holds another one is taken back, and what
    /// runs under it ends; where the file is gone a new one is made. As long as a file cannot be used nobody is let
    /// in with it.
    pub(super) async fn follow(self: Arc<Self>) -> Infallible {
        let mut tick = tokio::time::interval(LOOK_AGAIN);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let tokens = Arc::clone(&self);
            // It may wait for the disk. It fails only when the process ends.
            let _ = tokio::task::spawn_blocking(move || tokens.look()).await;
        }
    }

    fn look(&self) {
        for scope in Scope::ALL {
            let read = open(&self.dir, scope);
            let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let known = all.iter_mut().find(|known| known.scope == scope);
            let Some(known) = known.filter(|known| known.token.as_ref() != read.as_ref().ok()) else {
                continue;
            };
            known.ended.cancel();
            known.ended = self.ended.child_token();
            match read {
                Ok(token) => {
                    known.token = Some(token);
                    tracing::info!(%scope, "the token is another one now; the old one is worth nothing");
                }
                Err(error) => {
                    known.token = None;
                    tracing::error!(%scope, %error, "nobody is let in with this token");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn made_once_private_and_different() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        for scope in Scope::ALL {
            let path = token_path(dir.path(), scope);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            let text = read_token(dir.path(), scope).unwrap();
            assert_eq!(text.len(), 64);
            assert_eq!(tokens.scope(&text), Some(scope));
            assert_eq!(Tokens::open(dir.path()).unwrap().scope(&text), Some(scope));
            let mut wrong = text.to_string();
            wrong.replace_range(63.., if text.ends_with('0') { "1" } else { "0" });
            assert_eq!(tokens.scope(&wrong), None);
        }
        assert_eq!(tokens.scope(""), None);
        assert_eq!(fs::metadata(dir.path().join("tokens")).unwrap().mode() & 0o777, 0o700);
        assert!(Scope::Admin > Scope::Pay && Scope::Pay > Scope::Read);
    }

    #[test]
    fn what_others_can_read_or_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Tokens::open(dir.path()).unwrap();
        let path = token_path(dir.path(), Scope::Pay);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Tokens::open(dir.path()).unwrap_err().to_string().contains("chmod 600"));
        write_atomically(&path, b"").unwrap();
        let error = Tokens::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not a token"), "{error}");
    }

    #[test]
    fn what_is_removed_or_replaced_ends_and_what_cannot_be_used_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let path = token_path(dir.path(), Scope::Pay);
        let admin = tokens.admit(&read_token(dir.path(), Scope::Admin).unwrap()).unwrap();
        let other = format!("{}\n", "ab".repeat(TOKEN_BYTES));
        let changes: [&dyn Fn(); 3] = [
            &|| fs::remove_file(&path).unwrap(),
            &|| write_atomically(&path, other.as_bytes()).unwrap(),
            &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap(),
        ];
        for change in changes {
            let old = read_token(dir.path(), Scope::Pay).unwrap();
            tokens.look();
            let admitted = tokens.admit(&old).expect("nothing has changed");
            change();
            assert!(!admitted.ended.is_cancelled());
            tokens.look();
            assert!(admitted.ended.is_cancelled(), "what runs under it ends");
            assert!(tokens.admit(&old).is_none());
        }
        assert!(tokens.admit("").is_none(), "no token is not the empty one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        tokens.look();
        assert_eq!(tokens.scope(other.trim()), Some(Scope::Pay), "it can be used again");
        assert!(!admin.ended.is_cancelled(), "the others go on");
        tokens.ended().cancel();
        assert!(admin.ended.is_cancelled(), "until the daemon stops");
    }
}
