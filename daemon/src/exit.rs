//! The exit codes of both binaries.

/// How a binary of this project ends. The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed; standard error says why.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Another daemon runs on the data directory.
    DataDirInUse = 3,
    /// The data directory is missing, unsafe or of another network or identity.
    DataDirUnusable = 4,
    /// The store failed; nothing unsynced was sent.
    StoreFailed = 5,
    /// The command line cannot reach the daemon.
    DaemonUnreachable = 6,
    /// The token is missing, unknown or of too small a scope.
    Unauthorized = 7,
    /// Refused: no such thing, too little money, or not in this state.
    Refused = 8,
    /// A peer, the ledger or a queue is not available now; the same command may succeed later.
    TryAgain = 9,
    /// The wait was too long or was interrupted; what was asked for goes on.
    GoesOn = 10,
    /// The file is not the one that its proof is of.
    FileChanged = 11,
    /// The proof proves nothing.
    ProofInvalid = 12,
    /// The proof's milestones are not signed by the network's coordinators.
    SignaturesInvalid = 13,
    /// The proof is of another network.
    OtherNetwork = 14,
}

impl Exit {
    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::DataDirInUse => 3,
            Self::DataDirUnusable => 4,
            Self::StoreFailed => 5,
            Self::DaemonUnreachable => 6,
            Self::Unauthorized => 7,
            Self::Refused => 8,
            Self::TryAgain => 9,
            Self::GoesOn => 10,
            Self::FileChanged => 11,
            Self::ProofInvalid => 12,
            Self::SignaturesInvalid => 13,
            Self::OtherNetwork => 14,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
