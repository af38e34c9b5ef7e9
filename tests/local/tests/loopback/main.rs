//! What `stride-local` promises, over a socket.

mod bounds;
mod browsers;
mod collect;
mod end;
mod faults;
mod files;
mod hostile;
mod http;
mod keys;
mod kill;
mod metrics;
mod originals;
mod page;
mod program;
mod queries;
mod random;
mod refusals;
mod replay;
mod resume;
mod snapshot;
mod subscribe;
mod subscribers;
