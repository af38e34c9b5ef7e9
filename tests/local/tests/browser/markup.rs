//! Whatever a name, a value or an error is made of, the page shows it as text.

use serde_json::{Value, json};

use crate::webdriver::Browser;
use crate::{quoted, stage};

/// What runs a script where text becomes markup, an attribute, an address or a part of a script.
const MARKUP: [&str; 5] = [
    "<img src=x onerror=\"window.ran = 1\">",
    "<script>window.ran = 1</script>",
    "\"'><svg onload=\"window.ran = 1\"><style>*{display:none}</style>",
    "javascript:window.ran=1",
    "</textarea></title><iframe srcdoc=\"<script>top.ran = 1</script>\">${window.ran = 1}{{1}}",
];

/// Waits until the element shows all of these as they are.
fn shows(browser: &Browser, id: &str, texts: &[&str]) {
    for text in texts {
        let text = quoted(text);
        browser.wait(&format!("document.getElementById('{id}').textContent.includes({text})"));
    }
}

fn go(browser: &Browser, view: &str) {
    browser.run(&format!("location.hash = {}", quoted(view)));
}

#[test]
#[ignore = "starts a browser; .ci/run runs it"]
fn markup_in_names_values_and_errors_is_text() {
    let Some(stage) = stage() else { return };
    let (browser, server) = (&stage.browser, &stage.server);
    stage.enter();
    let own = "return ['img', 'script', 'iframe', 'style', 'object', 'embed', 'base', '[onload]', '[onerror]', '[style]'] \
         .map((kind) => document.querySelectorAll(kind).length)";
    let before = browser.run(own);
    let event: serde_json::Map<String, Value> =
        MARKUP.iter().map(|text| ((*text).to_owned(), json!({"in": [text]}))).collect();
    server.collect("clicks", &json!([event]));

    // Events: keys and values, as they came.
    go(browser, "#/tail/clicks");
    browser.wait("document.getElementById('tail-state').textContent === 'Live'");
    server.collect("clicks", &json!([event]));
    let shown: Vec<String> = MARKUP.iter().map(|text| quoted(text)).collect();
    shows(browser, "tail-rows", &shown.iter().map(String::as_str).collect::<Vec<_>>());
    for text in MARKUP {
        browser.run(&format!(
            "document.getElementById('filter').value = {}; \
            document.getElementById('filter').dispatchEvent(new Event('input'))",
            quoted(text)
        ));
    }

    // A result: columns, values, and both in a chart.
    go(browser, "#/sql");
    let query = |text: &str| {
        browser.run(&format!(
            "document.getElementById('query').value = {}; document.getElementById('run').click()",
            quoted(text)
        ));
    };
    let columns: Vec<String> = MARKUP
        .iter()
        .map(|text| format!("'{}' AS \"{}\"", text.replace('\'', "''"), text.replace('"', "\"\"")))
        .collect();
    let number = format!("7 AS \"{}!\"", MARKUP[0].replace('"', "\"\""));
    query(&format!("SELECT {}, {number}", columns.join(", ")));
    shows(browser, "result-table", &MARKUP);
    for shape in ["line", "bars"] {
        browser.run(&format!("document.querySelector('[value={shape}]').click()"));
        browser.wait("document.querySelector('#result-chart svg')");
        for column in 0..MARKUP.len() {
            browser.run(&format!(
                "const across = document.getElementById('across'); across.selectedIndex = {column}; \
                 across.dispatchEvent(new Event('change'))"
            ));
        }
    }
    // Errors: those of queries hold the names in them.
    for text in MARKUP {
        query(&format!("SELECT \"{}\"(1)", text.replace('"', "\"\"")));
        shows(browser, "sql-error", &[text]);
    }

    // A saved query and a process are shown with their text; a process with its last error.
    let literal = MARKUP[2].replace('\'', "''");
    let saved = json!({ "query": format!("SELECT '{literal}' AS x") });
    assert_eq!(server.ask("PUT", "/v1/analyze/kept", &saved).status, 200);
    stage.process("paths", "SELECT json_extract(a, b) AS x, count(*) FROM paths_of GROUP BY 1");
    server.collect("paths_of", &json!({"a": "{}", "b": MARKUP[0]}));
    stage.process(
        "views",
        &format!("SELECT '{literal}' AS x, count(*) AS n FROM clicks GROUP BY 1"),
    );
    go(browser, "#/processes");
    shows(
        browser,
        "process-list",
        &[&literal, &format!("Last error: bad JSON path: '{}'", MARKUP[0])],
    );
    go(browser, "#/sql");
    browser.wait(
        "[...document.getElementById('saved').options].some((each) => each.value === 'kept')",
    );
    browser.run("const saved = document.getElementById('saved'); saved.value = 'kept'; saved.dispatchEvent(new Event('change'))");
    let text = quoted(saved["query"].as_str().unwrap());
    browser.wait(&format!("document.getElementById('query').value === {text}"));
    // An address is typed by others, too.
    for text in MARKUP {
        for view in ["tail", "changes", "sql", ""] {
            go(browser, &format!("#/{view}/{text}"));
            browser.wait("document.querySelector('section:not([hidden])')");
        }
    }

    assert_eq!(browser.run("return window.ran ?? 'nothing ran'"), "nothing ran");
    assert_eq!(browser.run("return reports"), json!([]));
    assert_eq!(browser.run(own), before, "elements that the page has not made");
    let log = browser.log();
    assert!(!log.iter().any(|entry| entry["source"] == "security"), "{log:?}");
    // It would have been noticed: the policy stops each of these, and says so.
    browser.run("try { document.body.innerHTML = '<img>' } catch { }");
    browser.wait("reports.length === 1");
    browser.run("const script = document.createElement('script'); script.append('window.ran = 1'); document.body.append(script)");
    browser.wait("reports.length > 1");
    assert_eq!(browser.run("return window.ran ?? 'nothing ran'"), "nothing ran");
    assert!(browser.log().iter().any(|entry| entry["source"] == "security"));
}
