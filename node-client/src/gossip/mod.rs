//! Gossip.

#![allow(dead_code)]

mod book;
pub mod message;
mod neighbours;
mod orphans;
mod recent;
