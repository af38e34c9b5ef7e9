//! Connections: many tabs, tabs that nobody sees, a path that a proxy adds, and a server that ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Proxy, Server};
use crate::webdriver::{Browser, WATCHDOG};
use crate::{enter, say, stage};

const LIVE: &str = "document.getElementById('tail-state').textContent === 'Live'";

/// Waits until so many subscriptions are open.
fn subscribers(server: &Server, count: u64) {
    let start = Instant::now();
    while server.subscribers() != count {
        assert!(start.elapsed() < WATCHDOG, "{} subscribers, not {count}", server.subscribers());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tail(browser: &Browser, stream: &str) {
    browser.run(&format!("location.hash = '#/tail/{stream}'"));
}

/// A browser has six connections for a server, over all tabs: the seventh page would hang if each took one for good. In
/// windows of their own, all of them are seen at once.
#[test]
#[ignore = "starts a browser; .ci/run runs it"]
fn nine_tabs_load() {
    let Some(stage) = stage() else { return };
    let (browser, server) = (&stage.browser, &stage.server);
    server.collect("clicks", &json!({"n": 0}));
    let mut windows = vec![browser.window()];
    while windows.len() < 9 {
        windows.push(browser.another("window"));
    }
    for window in &windows {
        browser.switch(window);
        enter(browser, &server.page());
        tail(browser, "clicks");
        browser.wait("/^(Live|Waiting)/.test(document.getElementById('tail-state').textContent)");
    }
    // Some wait for a place, and can be used all the same: they load again, and run a query.
    for window in &windows {
        browser.switch(window);
        browser.run("location.hash = '#/streams'; location.reload()");
        browser.wait("document.querySelector('#streams-rows a')?.textContent === 'clicks'");
        browser.run("location.hash = '#/sql/clicks'");
        browser.run("document.getElementById('run').click()");
        browser.wait("document.querySelector('#result-table td')");
        tail(browser, "clicks");
        browser.wait("/^(Live|Waiting)/.test(document.getElementById('tail-state').textContent)");
    }
    // A place that is given back is taken.
    for window in &windows[..8] {
        browser.switch(window);
        browser.run("location.hash = '#/streams'");
    }
    browser.switch(&windows[8]);
    browser.wait(LIVE);
    server.collect("clicks", &json!({"n": 1}));
    browser.wait(
        "document.getElementById('tail-rows').textContent.includes('\"n\": 1') \
        || document.getElementById('tail-rows').textContent.includes('\"n\":1')",
    );
}

#[test]
#[ignore = "starts a browser; .ci/run runs it"]
fn a_hidden_tab_gives_its_long_request_up() {
    let Some(stage) = stage() else { return };
    let (browser, server) = (&stage.browser, &stage.server);
    server.collect("clicks", &json!({"n": 0}));
    stage.enter();
    tail(browser, "clicks");
    browser.wait(LIVE);
    subscribers(server, 1);
    browser.minimize();
    browser.wait("document.hidden");
    subscribers(server, 0);
    server.collect("clicks", &json!({"n": 1}));
    browser.restore();
    browser.wait(LIVE);
    subscribers(server, 1);
    browser.wait("document.querySelector('#tail-rows .mark')?.textContent.includes('hidden')");
}

#[test]
#[ignore = "starts a browser; .ci/run runs it"]
fn below_a_path_the_server_is_killed_and_the_page_goes_on() {
    let Some(stage) = stage() else { return };
    let browser = &stage.browser;
    let proxy = Proxy::start(stage.server.addr);
    let file = stage.folder.path().join("stride.db");
    stage.server.collect("clicks", &json!({"n": 0}));
    enter(browser, &proxy.page());
    // All views, below the path.
    browser.wait("document.querySelector('#streams-rows a')?.textContent === 'clicks'");
    browser.run("location.hash = '#/sql/clicks'");
    browser.run("document.getElementById('run').click()");
    browser.wait("document.querySelector('#result-table td')");

    let mut server = Some(stage.server);
    let mut next = 1;
    for every in [true, false] {
        tail(browser, "clicks");
        browser.wait(LIVE);
        if every != (browser.run("return document.getElementById('all').checked") == true) {
            browser.run("document.getElementById('all').click()");
        }
        browser.wait(&format!("document.getElementById('all').checked === {every}"));
        browser.wait(LIVE);
        let old = server.take().unwrap();
        old.collect("clicks", &json!({"n": next}));
        let has = |n: u64| {
            format!(
                "[...document.querySelectorAll('#tail-rows li')].some((row) => /\"n\": ?{n}\\b/.test(row.textContent))"
            )
        };
        browser.wait(&has(next));
        old.kill();
        browser.wait("document.getElementById('tail-state').textContent.startsWith('Not reached')");
        browser.wait("document.getElementById('status').textContent.startsWith('Not reached')");
        let new = Server::start(&file);
        // What comes before the page is back.
        new.collect("clicks", &json!({"n": next + 1}));
        let start = Instant::now();
        proxy.redirect(new.addr);
        browser.wait(LIVE);
        browser.wait("document.getElementById('status').textContent === 'Live'");
        let took = start.elapsed();
        say(&format!("the page is live {took:.1?} after its server, which is to be 3 s at most"));
        assert!(took < Duration::from_secs(20), "{took:?}");
        new.collect("clicks", &json!({"n": next + 2}));
        browser.wait(&has(next + 2));
        let rows = browser.run(
            "return [...document.querySelectorAll('#tail-rows li')].map((row) => row.textContent)",
        );
        let rows: Vec<&str> = rows.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let mark = rows.iter().find(|row| row.starts_with("Reconnected")).unwrap();
        let was_shown = browser.run(&format!("return {}", has(next + 1)));
        if every {
            // The subscription goes on where it was.
            assert!(mark.contains("nothing was missed") && was_shown == true, "{rows:?}");
        } else {
            assert!(mark.contains("is not shown") && was_shown == false, "{rows:?}");
        }
        next += 3;
        server = Some(new);
        browser.run("location.hash = '#/streams'");
    }
    for head in proxy.heads() {
        let line = head.lines().next().unwrap();
        assert!(line.contains(" /deep/prefix/"), "{line}");
    }
}
