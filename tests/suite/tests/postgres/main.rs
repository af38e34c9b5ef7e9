//! Several servers on one PostgreSQL: they are killed, it is killed, and nothing that matters is lost.

mod away;
mod child;
mod cluster;
mod failover;
mod fills;
mod load;
mod migrate;
mod servers;
mod several;
mod throughput;
mod tls;
