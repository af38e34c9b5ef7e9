//! What `stride-local` promises, over a socket.

mod collect;
mod end;
mod faults;
mod http;
mod keys;
mod program;
mod refusals;
mod subscribe;
