//! The HTTP face: connections, requests and answers. What is stored and who is told about it is the
//! business of [`streams`](crate::streams), which in turn knows nothing of HTTP.

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
