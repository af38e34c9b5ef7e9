//! The program as its users have it: a child process, on a terminal or in a pipe, with a server to talk to.

mod child;
mod commands;
mod csv_files;
mod exit_codes;
mod imports;
mod long_runs;
mod secrets;
mod terminals;
