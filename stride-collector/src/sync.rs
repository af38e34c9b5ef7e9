//! The locks and atomics that callers and senders share: the standard library's, or those of a
//! scheduler that tries interleavings (`interleavings.rs`).

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize},
    },
    thread_local,
};

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{
    sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize},
    },
    thread_local,
};
