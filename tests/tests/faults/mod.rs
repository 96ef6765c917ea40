//! Faults around two real daemons: of the link between them, of the disk, of the system, of people.
//!
//! `docs/testing-cases.md` says which of these tests stands for which failure case.

mod contest;
mod copies;
mod flat;
mod link;
mod operation;
mod parties;
mod people;
mod records;
mod storage;
