//! Kills, stops and cuts off workers on real services, and counts what came of
//! it.

mod http;
pub mod proxy;
