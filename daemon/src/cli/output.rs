//! What is printed: tables for people, JSON for programs, errors with what to do about them.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::{
    api::{ApiError, ErrorCode},
    exit::Exit,
    setup::SetupError,
};

/// Why a command did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// This is to be printed.
    Error { error: ApiError, exit: Exit },
    /// Everything was said already.
    Told(Exit),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = error.code.exit();
        Self::Error { error, exit }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        let exit = error.exit();
        let (code, hint) = match exit {
            Exit::Usage => (ErrorCode::InvalidRequest, "`flash init --help` describes the options"),
            _ => (ErrorCode::DataDirUnusable, "nothing that was there before was changed"),
        };
        Self::Error { error: ApiError::new(code, error.to_string(), hint), exit }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever reads has had enough, as `head` does.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Told(Exit::Ok);
        }
        let message = format!("cannot read or write the standard streams: {error}");
        ApiError::new(ErrorCode::Internal, message, "see where they lead to").into()
    }
}

/// Where and how to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
    json_errors: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json: json || !io::stdout().is_terminal(), json_errors: json }
    }

    /// Prints a value: as JSON, or as the text that `view` makes of it.
    pub(super) fn value<T: Serialize>(
        self,
        value: &T,
        view: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(value).map_err(io::Error::other)?
        } else {
            view(value)
        };
        self.bytes(format!("{}\n", text.trim_end()).as_bytes())
    }

    /// Writes one of many values as one line.
    pub(super) fn line<T: Serialize>(
        self,
        to: &mut impl Write,
        value: &T,
        view: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            serde_json::to_writer(&mut *to, value).map_err(io::Error::from)?;
            Ok(to.write_all(b"\n")?)
        } else {
            Ok(writeln!(to, "{}", view(value))?)
        }
    }

    #[allow(clippy::unused_self, reason = "all output goes through here")]
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Tells people something that is no part of the result.
    #[allow(clippy::unused_self, reason = "all output goes through here")]
    pub(super) fn note(self, text: &str) {
        // There is nowhere else to say that standard error cannot be written.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Prints why a command failed.
    pub(super) fn failure(self, failure: &Failure) -> Exit {
        match failure {
            Failure::Told(exit) => *exit,
            Failure::Error { error, exit } => {
                self.note(&if self.json_errors {
                    serde_json::to_string(error).unwrap_or_default()
                } else if error.hint.is_empty() {
                    format!("error: {}", error.message)
                } else {
                    format!("error: {}\nhint: {}", error.message, error.hint)
                });
                *exit
            }
        }
    }
}
