//! HTTP: connections, requests and responses. What is stored is the business of the
//! [`engine`](crate::engine), and who is told about it that of [`subscribers`](crate::subscribers); neither
//! knows HTTP.

pub(crate) mod accept;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod faults;
pub(crate) mod handlers;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod response;
pub(crate) mod router;
pub(crate) mod subscription;
pub(crate) mod ui;
