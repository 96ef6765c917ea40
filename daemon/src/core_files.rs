//! Keys are in the memory of a running process, and a core file is a copy of that memory (I14).

use rustix::process::{Resource, Rlimit, setrlimit};

/// The system writes no core file of this process or of those that it starts.
///
/// A limit of one byte and not of zero: Linux passes a core to a program (`|` in `core_pattern`) whatever
/// the limit is, unless it is exactly one (core(5)).
pub fn forbid() {
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    if setrlimit(Resource::Core, limit).is_err() {
        // A stricter limit is in force that may not be raised: as good.
        eprintln!("warning: the limit of core files cannot be set; see `ulimit -c`");
    }
}
