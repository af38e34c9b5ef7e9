//! Chromium, driven over `WebDriver`: JSON over plain HTTP, which `chromedriver` takes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Connection, Request};

/// What hangs fails after this: far longer than anything takes on a loaded machine.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// The browser may talk to this machine only, and looks no name up.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/// Runs before the scripts of each page, and keeps what its policy has to report.
const WATCH: &str = "window.reports = []; document.addEventListener('securitypolicyviolation', \
    (event) => reports.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));";

/// Keys without a letter, as `WebDriver` writes them.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const SHIFT: &str = "\u{e008}";
pub(crate) const CONTROL: &str = "\u{e009}";
pub(crate) const DOWN: &str = "\u{e015}";

/// The driver with a browser that it has started. Both end when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    /// Open as long as the driver may write to it.
    _output: BufReader<ChildStdout>,
    addr: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts both, or says that one of them is not installed: past the test's captured output, as what is skipped should
    /// be seen.
    pub(crate) fn start() -> Option<Self> {
        let is_there = |name: &&str| {
            let version = Command::new(name).arg("--version").stderr(Stdio::null()).output();
            version.is_ok_and(|version| version.status.success())
        };
        let browsers = ["chromium", "chromium-browser", "google-chrome"];
        if !is_there(&"chromedriver") || !browsers.iter().any(is_there) {
            let said: &[u8] =
                b"SKIPPED: there is no Chromium with chromedriver to show the page in\n";
            std::io::stderr().write_all(said).unwrap();
            return None;
        }
        let mut driver = Command::new("chromedriver");
        let driver = driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        // With the browser in a group of processes, which ends as a whole.
        let mut driver = driver.process_group(0).spawn().unwrap();
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let port: u16 = loop {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "the driver did not start");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim().trim_end_matches('.').parse().unwrap();
            }
        };
        let addr = (Ipv4Addr::LOCALHOST, port).into();
        let session = "/session".to_owned();
        let mut browser = Self { driver, _output: output, addr, session };
        let always = json!({
            "goog:chromeOptions": { "args": ARGUMENTS },
            "goog:loggingPrefs": { "browser": "ALL" },
            "unhandledPromptBehavior": "ignore",
        });
        let session =
            browser.ask("POST", "", &json!({ "capabilities": { "alwaysMatch": always } }));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.prepare_tab();
        Some(browser)
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let mut connection = Connection::to(self.addr).unwrap();
        connection.socket.get_ref().set_read_timeout(Some(WATCHDOG)).unwrap();
        let request = Request::new(method, &format!("{}{path}", self.session));
        let request = if body.is_null() { request } else { request.json(body.to_string()) };
        let response = connection.exchange(&request);
        let value = response.json()["value"].take();
        if response.status == 200 { Ok(value) } else { Err(value["message"].clone()) }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    /// Sends a command of Chromium's own protocol to the tab.
    pub(crate) fn command(&self, name: &str, parameters: &Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// The group of processes that the browser's are in.
    pub(crate) fn group(&self) -> u32 {
        self.driver.id()
    }

    fn prepare_tab(&self) {
        self.command("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": WATCH }));
        // The size of a screen, however large the window is.
        self.resize(1200, 760);
    }

    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", &size);
    }

    /// `dark` or `light`, as the user's system would have it.
    pub(crate) fn prefer(&self, scheme: &str) {
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", &scheme);
    }

    pub(crate) fn open(&self, address: &str) {
        self.ask("POST", "/url", &json!({ "url": address }));
    }

    /// The body of a function, run in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until this expression is true in the page, and returns its value.
    pub(crate) fn wait(&self, expression: &str) -> Value {
        let start = Instant::now();
        loop {
            let value = self.run(&format!("return {expression}"));
            if value != false && !value.is_null() && value != "" && value != 0 {
                return value;
            }
            if start.elapsed() > WATCHDOG {
                let page = self.run("return `${location} ${document.body.innerText}`");
                panic!("never: {expression}; the page: {page}; its log: {:?}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses keys and lets them go, one after another; those that stand together are held together.
    pub(crate) fn press(&self, keys: &[&str]) {
        let action = |kind: &str, key: &str| json!({ "type": kind, "value": key });
        let mut actions: Vec<Value> = keys.iter().map(|key| action("keyDown", key)).collect();
        actions.extend(keys.iter().rev().map(|key| action("keyUp", key)));
        let source = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.ask("POST", "/actions", &json!({ "actions": [source] }));
    }

    /// Types a text into what has the focus.
    pub(crate) fn write(&self, text: &str) {
        let actions: Vec<Value> = text
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let source = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.ask("POST", "/actions", &json!({ "actions": [source] }));
    }

    /// Opens another window or tab, and goes there.
    pub(crate) fn another(&self, kind: &str) -> String {
        let handle = self.ask("POST", "/window/new", &json!({ "type": kind }))["handle"].take();
        let handle = handle.as_str().unwrap().to_owned();
        self.switch(&handle);
        self.prepare_tab();
        handle
    }

    pub(crate) fn window(&self) -> String {
        self.ask("GET", "/window", &Value::Null).as_str().unwrap().to_owned()
    }

    pub(crate) fn switch(&self, window: &str) {
        self.ask("POST", "/window", &json!({ "handle": window }));
    }

    pub(crate) fn minimize(&self) {
        self.ask("POST", "/window/minimize", &json!({}));
    }

    pub(crate) fn restore(&self) {
        self.ask("POST", "/window/rect", &json!({ "width": 1200, "height": 800 }));
    }

    /// All cookies of the page, also those that its scripts cannot see.
    pub(crate) fn cookies(&self) -> Value {
        self.ask("GET", "/cookie", &Value::Null)
    }

    /// What the browser has logged since it was last asked.
    pub(crate) fn log(&self) -> Vec<Value> {
        let log = self.ask("POST", "/se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().clone()
    }

    /// A picture of the tab, as `png` or `webp`.
    pub(crate) fn picture(&self, format: &str) -> Vec<u8> {
        let picture = self.command("Page.captureScreenshot", &json!({ "format": format }));
        STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In good order the browser deletes its profile; whatever happens, it ends.
        if !thread::panicking() {
            drop(self.try_ask("DELETE", "", &Value::Null));
        }
        let group = format!("-{}", self.group());
        drop(Command::new("kill").args(["-KILL", "--", &group]).status());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
