//! A whole session without a mouse, and what a screen reader is told.

use serde_json::{Value, json};

use crate::server::KEY;
use crate::webdriver::{Browser, CONTROL, DOWN, ENTER, SHIFT, TAB};
use crate::{give_key, quoted, stage};

/// What has the focus, and whether one sees that it has, and is told what it is.
const FOCUS: &str = "
    const focused = document.activeElement;
    const style = getComputedStyle(focused);
    const name = focused.getAttribute('aria-label') ?? focused.labels?.[0]?.textContent ?? focused.textContent;
    return {
        isVisible: focused === document.body
            || focused.matches(':focus-visible') && style.outlineStyle !== 'none' && style.outlineWidth !== '0px',
        name: name.trim(), html: focused.cloneNode().outerHTML,
    }";

/// Goes on from one element to the next until it comes to the one that matches, as many as a page may have.
fn tab_to(browser: &Browser, selector: &str) {
    let is_there = format!("return document.activeElement.matches({})", quoted(selector));
    for _ in 0..60 {
        if browser.run(&is_there) == true {
            return;
        }
        browser.press(&[TAB]);
        let focus = browser.run(FOCUS);
        assert_eq!(focus["isVisible"], true, "one does not see the focus of {focus}");
        assert_ne!(focus["name"], "", "a screen reader has no name for {focus}");
    }
    panic!("{selector} is not reached by keys");
}

fn use_(browser: &Browser, selector: &str, key: &str) {
    tab_to(browser, selector);
    browser.press(&[key]);
}

fn view(browser: &Browser, name: &str) {
    use_(browser, &format!("nav a[href='#/{name}']"), ENTER);
    browser.wait(&format!("document.getElementById('{name}').offsetHeight > 0"));
}

#[test]
#[ignore = "starts a browser; .ci/run runs it"]
fn a_whole_session_by_keyboard() {
    let Some(stage) = stage() else { return };
    let (browser, server) = (&stage.browser, &stage.server);
    browser.open(&server.page());
    give_key(browser, KEY);
    browser.wait("document.getElementById('empty').offsetHeight > 0");

    use_(browser, "#test-event", ENTER);
    browser.wait("document.querySelector('#streams-rows a')?.textContent === 'test_events'");
    server.collect("clicks", &json!([{"page": "/", "n": 1}, {"page": "/horses", "n": 2}]));
    browser.wait("document.querySelectorAll('#streams-rows tr').length === 2");
    // A search by its key, and on to what it has found.
    browser.run("document.activeElement.blur()");
    browser.press(&["/"]);
    browser.wait("document.activeElement.id === 'search'");
    browser.write("CLI");
    browser.wait("document.querySelectorAll('#streams-rows tr').length === 1");
    use_(browser, "#streams-rows a", ENTER);
    browser.wait("document.getElementById('tail-state').textContent === 'Live'");

    // The tail: paused and gone on with, filtered, and all of it.
    let rows = "document.querySelectorAll('#tail-rows li').length";
    use_(browser, "#pause", " ");
    browser.wait("document.getElementById('pause').getAttribute('aria-pressed') === 'true'");
    server.collect("clicks", &json!([{"page": "/", "n": 3}, {"page": "/horses", "n": 4}]));
    browser.wait("document.getElementById('tail-note').textContent.includes('2 events came')");
    assert_eq!(browser.run(&format!("return {rows}")), 0);
    browser.press(&[" "]);
    browser.wait(&format!("{rows} === 2"));
    tab_to(browser, "#filter");
    browser.write("horses");
    browser.wait(&format!("{rows} === 1"));
    use_(browser, "#all", " ");
    browser.wait("document.getElementById('all').checked");
    browser.wait("document.getElementById('tail-state').textContent === 'Live'");

    // A query: an integer as it is, 500 rows of more, a line, and saved under a name.
    view(browser, "sql");
    tab_to(browser, "#query");
    let numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000) \
                   SELECT n, n * n AS square, 9007199254740993 AS large FROM numbers";
    browser.write(numbers);
    browser.press(&[CONTROL, ENTER]);
    browser.wait("document.querySelectorAll('#result-table tbody tr').length === 500");
    let note = browser.run("return document.getElementById('sql-note').textContent");
    assert!(note.as_str().unwrap().contains("2,000 rows"), "{note}");
    let cell = "return document.querySelector('#result-table tbody td:nth-child(3)').textContent";
    assert_eq!(browser.run(cell), "9007199254740993");
    use_(browser, "[name=shape]", DOWN);
    browser.wait("document.querySelector('#result-chart .line')");
    browser.press(&[DOWN]);
    browser.wait("document.querySelectorAll('#result-chart .bar').length === 500");
    use_(browser, "#up", DOWN);
    browser.wait("document.querySelector('#result-chart svg').getAttribute('aria-label').startsWith('large by n')");
    use_(browser, "#save", ENTER);
    browser.wait("document.activeElement.id === 'answer'");
    browser.write("squares");
    browser.press(&[ENTER]);
    browser.wait("document.getElementById('saved').value === 'squares'");
    assert_eq!(server.ask("GET", "/v1/analyze/squares", &Value::Null).json()["query"], numbers);

    // One that would take for ever is given up, and the server ends it.
    tab_to(browser, "#query");
    browser.press(&[CONTROL, "a"]);
    browser.write(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n",
    );
    browser.press(&[CONTROL, ENTER]);
    use_(browser, "#cancel", ENTER);
    browser.wait("document.getElementById('sql-note').textContent.startsWith('Cancelled')");

    // A process is made, its changes are followed, and it is deleted after a question.
    view(browser, "processes");
    use_(browser, "#new-process", ENTER);
    browser.wait("document.activeElement.id === 'process-name'");
    browser.write("views");
    browser.press(&[TAB]);
    browser.write("SELECT page, count(*) AS views FROM clicks GROUP BY page");
    use_(browser, "#create", ENTER);
    browser.wait("document.querySelector('#process-list h3')?.textContent === 'views'");
    use_(browser, "[aria-label='Changes of views']", ENTER);
    browser.wait("document.getElementById('tail-state').textContent === 'Live'");
    // The filter of before is still there.
    server.collect("clicks", &json!({"page": "/horses"}));
    browser.wait("/\"views\": ?3/.test(document.getElementById('tail-rows').textContent)");
    view(browser, "processes");
    use_(browser, "[aria-label='Delete views']", ENTER);
    // What is asked for is no by default.
    browser.wait("document.activeElement.id === 'no'");
    browser.press(&[ENTER]);
    browser.wait("!document.getElementById('question').open");
    assert_eq!(server.ask("GET", "/v1/process", &Value::Null).json(), json!(["views"]));
    use_(browser, "[aria-label='Delete views']", ENTER);
    browser.wait("document.activeElement.id === 'no'");
    use_(browser, "#yes", ENTER);
    browser.wait("document.querySelectorAll('#process-list li').length === 0");
    assert_eq!(server.ask("GET", "/v1/process", &Value::Null).json(), json!([]));

    view(browser, "server");
    browser.wait("document.getElementById('server-facts').textContent.includes('Version')");
    // Backwards, too.
    tab_to(browser, "#forget");
    browser.press(&[SHIFT, TAB]);
    browser.wait("document.activeElement.matches('nav a')");
    tab_to(browser, "#forget");
    browser.press(&[ENTER]);
    browser.wait("document.activeElement.id === 'key'");
    assert_eq!(browser.run("return reports"), json!([]));
}
