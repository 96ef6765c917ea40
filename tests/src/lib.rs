//! What the tests of several crates together need.

pub mod sim;
