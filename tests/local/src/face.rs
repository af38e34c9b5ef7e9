//! The HTTP face: connections, requests and answers. What is stored is the business of the
//! [`engine`](crate::engine), and who is told about it that of [`streams`](crate::streams); neither
//! knows HTTP.

pub(crate) mod answer;
pub(crate) mod auth;
pub(crate) mod connection;
pub(crate) mod handler;
pub(crate) mod intake;
pub(crate) mod limits;
pub(crate) mod operations;
pub(crate) mod query;
pub(crate) mod route;
pub(crate) mod server;
pub(crate) mod subscription;
