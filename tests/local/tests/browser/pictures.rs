//! How the page looks: in both schemes, on a screen and on a phone. With `STRIDE_SCREENSHOTS` the pictures of the README are
//! written to that folder; the streams are fed for two minutes before, which is what their charts show.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Server, endpoint_of};
use crate::webdriver::{Browser, CONTROL, ENTER};
use crate::{quoted, say, stage};

/// The texts whose colour does not stand out from what is behind them, at 4.5 to 1 (WCAG 2.2, 1.4.3).
const FAINT: &str = r"
    const light = (channels) => channels.slice(0, 3).map((it) => it / 255)
        .map((it) => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4)
        .reduce((sum, it, n) => sum + it * [0.2126, 0.7152, 0.0722][n], 0);
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const faint = [];
    let texts = 0;
    for (const element of document.querySelectorAll('body *')) {
        const text = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim())[0];
        if (!text || !element.checkVisibility() || element.disabled || element.closest('noscript, title, option')) continue;
        const style = getComputedStyle(element);
        const color = light(channels(element instanceof SVGElement ? style.fill : style.color));
        let behind = element;
        const back = () => channels(getComputedStyle(behind).backgroundColor);
        while (behind.parentElement && back()[3] === 0) behind = behind.parentElement;
        const other = light(back());
        texts += 1;
        const contrast = (Math.max(color, other) + 0.05) / (Math.min(color, other) + 0.05);
        if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${text.data}`);
    }
    return { texts, faint };";

const QUERY: &str = "SELECT minute, orders, revenue\nFROM orders_a_minute\nORDER BY minute";

/// Fills the server with what somebody might have there.
fn fill(server: &Server, time: Duration) {
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(20);
    let names = ["clicks", "orders", "logins", "app_events", "web_logs"];
    let pages = ["/", "/horses", "/cart", "/search", "/horses/42"];
    loop {
        let second = start.elapsed().as_secs_f64();
        for (n, name) in names.iter().enumerate() {
            let wave = 1.2 + (second / [9.0, 23.0, 14.0, 31.0, 6.0][n]).sin();
            let most = [120.0, 14.0, 30.0, 400.0, 60.0][n] / 10.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is small and positive"
            )]
            let count = (wave * most * random.f64() + 0.5) as usize;
            let events: Vec<_> = (0..count)
                .map(|_| {
                    let page = pages[random.usize(..pages.len())];
                    json!({"page": page, "user": random.u32(1000..9999), "took_ms": random.u32(3..80)})
                })
                .collect();
            if !events.is_empty() {
                server.collect(name, &json!(events));
            }
        }
        if start.elapsed() >= time {
            return;
        }
        // The pace of what is sent.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn view(browser: &Browser, view: &str) {
    browser.run(&format!("location.hash = '#/{view}'"));
    match view.split('/').next().unwrap() {
        "tail" => {
            browser.wait("document.getElementById('tail-state').textContent === 'Live'");
            browser.wait("document.querySelectorAll('#tail-rows li').length > 0");
        }
        "sql" => {
            let query = quoted(QUERY);
            browser.run(&format!("document.getElementById('query').value = {query}"));
            browser.run("document.getElementById('query').focus()");
            browser.press(&[CONTROL, ENTER]);
            browser.wait("document.querySelectorAll('#result-table tbody tr').length > 30");
            browser.run("document.querySelector('[value=line]').click()");
            browser.wait("document.querySelector('#result-chart .line')");
        }
        name => {
            browser.wait(&format!("document.querySelector('#{name} :is(td, dd)')"));
        }
    }
}

#[test]
#[ignore = "starts a browser; .ci/run runs it"]
fn the_page_is_legible_in_dark_and_light_and_on_a_phone() {
    let Some(stage) = stage() else { return };
    let (browser, server) = (&stage.browser, &stage.server);
    let folder = std::env::var_os("STRIDE_SCREENSHOTS").map(PathBuf::from);
    server.collect("clicks", &json!({"page": "/"}));
    stage.process("views", "SELECT page, count(*) AS views FROM clicks GROUP BY page");
    let orders: Vec<_> = (0..48)
        .map(|n| {
            let orders =
                220.0 + 140.0 * (f64::from(n) / 7.0).sin() + 40.0 * (f64::from(n) / 2.3).cos();
            let minute = format!("2026-11-26T{:02}:{:02}:00Z", 9 + n / 60, n % 60);
            json!({"minute": minute, "orders": orders.round(), "revenue": (orders * 31.4).round()})
        })
        .collect();
    server.collect("orders_a_minute", &json!(orders));
    stage.enter();
    std::thread::scope(|scope| {
        let time = Duration::from_secs(if folder.is_some() { 170 } else { 5 });
        let feed = scope.spawn(move || fill(server, time));
        if folder.is_some() {
            // Charts of two minutes.
            browser.wait("document.querySelectorAll('#streams-rows tr').length > 4");
            std::thread::sleep(Duration::from_secs(125));
        }
        for (width, height, kind) in [(1200, 760, "screen"), (390, 844, "phone")] {
            browser.resize(width, height);
            for scheme in ["light", "dark"] {
                browser.prefer(scheme);
                let mut behind = None;
                for name in ["streams", "tail/clicks", "sql", "processes", "server"] {
                    view(browser, name);
                    let fits =
                        browser.run("return document.documentElement.scrollWidth <= innerWidth");
                    assert_eq!(fits, true, "{name} is wider than a {kind}");
                    // What changes its colour takes a moment.
                    browser.wait("document.getAnimations().length === 0");
                    let seen = browser.run(FAINT);
                    assert_eq!(seen["faint"], json!([]), "{name}, {scheme}, on a {kind}");
                    assert!(seen["texts"].as_u64().unwrap() > 10, "{name}: {seen}");
                    let color =
                        browser.run("return getComputedStyle(document.body).backgroundColor");
                    behind.get_or_insert(color);
                    let picture = browser.picture("png");
                    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5_000);
                    let name = name.split('/').next().unwrap();
                    if let Some(folder) = &folder {
                        fs::create_dir_all(folder).unwrap();
                        let file = folder.join(format!("{name}-{scheme}-{kind}.png"));
                        fs::write(file, picture).unwrap();
                    }
                }
                let is_dark = behind.unwrap().as_str().unwrap().starts_with("rgb(1");
                assert_eq!(is_dark, scheme == "dark");
            }
        }
        feed.join().unwrap();
    });
    assert_eq!(browser.run("return reports"), json!([]));
}

/// The README's three commands, one after another, with another port and without a build.
#[test]
#[ignore = "starts a browser; .ci/run runs it"]
fn three_commands_lead_from_nothing_to_a_chart() {
    let Some(stage) = stage() else { return };
    let browser = &stage.browser;
    let readme = include_str!("../../../../README.md");
    let (_, block) = readme.split_once("<!-- three commands -->\n\n```sh\n").unwrap();
    let block = block.split_once("\n```").unwrap().0;
    let commands: Vec<&str> =
        block.lines().map(|line| line.split("  #").next().unwrap().trim()).collect();
    let [serve, send, show] = commands[..] else { panic!("{commands:?}") };

    let arguments = serve.strip_prefix("cargo run --release -p stride-local -- ").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_stride-local"));
    program.args(arguments.split(' ')).args(["--listen", "127.0.0.1:0", "--log", "off"]);
    let mut program = program.stdout(Stdio::piped()).spawn().unwrap();
    let addr = endpoint_of(&mut program);
    let _running = Server::of(program, addr);
    let here = |command: &str| command.replace("127.0.0.1:8080", &addr.to_string());
    let key = arguments.split(' ').nth(1).unwrap();
    browser.open(&here(show.strip_prefix("xdg-open ").unwrap()));
    crate::give_key(browser, key);
    browser.wait("document.getElementById('empty').offsetHeight > 0");
    let sent = Command::new("bash").args(["-c", &here(send)]).env("no_proxy", "*").output();
    match sent {
        Ok(sent) if sent.status.success() => {}
        _ => return say("SKIPPED: the README's commands, because there is no bash or no curl"),
    }
    // A line that is not flat.
    browser.wait(
        "document.querySelector('#streams-rows .spark path')?.getAttribute('d').length > 100",
    );
}
