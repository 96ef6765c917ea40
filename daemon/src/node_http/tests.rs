//! The API over real HTTP.

mod classic;
mod explorer;
mod rest;
mod support;
