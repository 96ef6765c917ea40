//! The API over real HTTP.

mod classic;
mod rest;
mod support;
