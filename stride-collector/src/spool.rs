//! Events on disk: the format of the files, the disk, and the folders that collectors take. Public for
//! tests and for programs that look inside; it comes without a promise of stability.
//!
//! ```text
//! DIR/                          the user's, shared by any number of processes
//!   8c5f0a3e9d2b7146-0/         a slot: of one endpoint, held by one collector at a time
//!     lock                      locked for as long as the slot is held
//!     0000000000000001.segment  a header, then records
//!     0000000000000002.segment
//! ```

pub mod disk;
pub mod machine;
mod reading;
pub mod record;
mod settings;
pub mod slot;
mod thread;

pub use self::machine::{SpoolStats, WhenFull};
pub use self::settings::Spool;
pub(crate) use self::thread::{Opened, Spooler};
