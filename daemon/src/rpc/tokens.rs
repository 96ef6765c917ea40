//! Who may call: three tokens, one per scope, in files that only the daemon's user may read.

use std::{
    fmt,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::datadir::{DataDirError, check_private, write_atomically};

const TOKEN_BYTES: usize = 32;

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
#[derive(Clone)]
pub struct Tokens([(Scope, Zeroizing<String>); 3]);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(hidden)")
    }
}

/// The file of the token with this scope in the data directory `dir`.
pub fn token_path(dir: &Path, scope: Scope) -> PathBuf {
    dir.join("tokens").join(scope.name())
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
        let reason = "is not a token. Remove the file; the daemon makes a new token at its next start";
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
        let folder = dir.join("tokens");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(DataDirError::io(&folder))?;
        check_private(&folder, "700")?;
        let open = |scope: Scope| -> Result<_, DataDirError> {
            let path = token_path(dir, scope);
            if !path.exists() {
                let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
                getrandom::fill(bytes.as_mut())
                    .map_err(|error| DataDirError::io(&path)(io::Error::other(error.to_string())))?;
                let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(*bytes))));
                write_atomically(&path, text.as_bytes())?;
            }
            Ok((scope, read_token(dir, scope)?))
        };
        Ok(Self([open(Scope::Read)?, open(Scope::Pay)?, open(Scope::Admin)?]))
    }

    /// The scope of a token, `None` if it is not known. Takes as long whichever token it is, and
    /// however many of its digits are right.
    pub fn scope(&self, token: &str) -> Option<Scope> {
        // 0 is no token; otherwise one more than the place in the list.
        let mut found = 0_u8;
        for (place, (_, known)) in (1_u8..).zip(&self.0) {
            let same: Choice = known.as_bytes().ct_eq(token.as_bytes());
            found.conditional_assign(&place, same);
        }
        let place = usize::from(found).checked_sub(1)?;
        self.0.get(place).map(|(scope, _)| *scope)
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
}
