//! The page at `/ui/` in a browser: Debian's packages `chromium` and `chromium-driver`. Without them the tests say that
//! they are skipped. `STRIDE_SCREENSHOTS` is a folder to put pictures of the page into.

#![cfg(unix)]

#[path = "../loopback/http.rs"]
#[expect(dead_code, reason = "the tests without a browser need more of it")]
mod http;
mod keyboard;
mod load;
mod markup;
mod pictures;
mod server;
mod start;
mod tabs;
mod webdriver;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;

use server::{KEY, Server};
use webdriver::{Browser, ENTER};

/// What a test needs. Only one has it at a time, because they measure how smooth the page is.
struct Stage {
    browser: Browser,
    server: Server,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// A browser and an empty server, unless there is no browser.
fn stage() -> Option<Stage> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let browser = Browser::start()?;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("stride.db"));
    Some(Stage { browser, server, folder, _alone: alone })
}

impl Stage {
    /// Opens the page and types the key.
    fn enter(&self) {
        enter(&self.browser, &self.server.page());
    }

    /// Makes a process.
    fn process(&self, name: &str, query: &str) {
        let process = json!({ "query": query, "action": "MATERIALIZE" });
        let made = self.server.ask("POST", &format!("/v1/process/{name}"), &process);
        assert_eq!(made.status, 201, "{made:?}");
    }
}

fn enter(browser: &Browser, page: &str) {
    browser.open(page);
    give_key(browser, KEY);
    browser.wait("!document.getElementById('key-dialog').open");
    browser.wait("document.getElementById('status').textContent === 'Live'");
}

fn give_key(browser: &Browser, key: &str) {
    browser.wait("document.activeElement.id === 'key'");
    browser.write(key);
    browser.press(&[ENTER]);
}

/// Says what was measured, past the test's captured output.
fn say(what: &str) {
    use std::io::Write as _;
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// A text as JavaScript writes it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
