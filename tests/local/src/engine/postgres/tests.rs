//! What is told of PostgreSQL alone, and the suite that every engine passes. They need a database.

mod contract;
