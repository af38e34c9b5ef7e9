//! What `stride-local` promises, over a socket.

mod audience;
mod collect;
mod end;
mod faults;
mod hostile;
mod http;
mod keys;
mod kill;
mod operations;
mod originals;
mod program;
mod queries;
mod refusals;
mod subscribe;
