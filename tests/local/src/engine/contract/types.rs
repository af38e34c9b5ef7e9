//! Values have types, and keep them: objects, truth values, numbers and texts.

use serde_json::json;

use super::{Engine as _, Fixture, Subject};

pub(in crate::engine) fn q6_where_a_text_is_used_an_object_is_its_json<S: Subject>() {
    let it = Fixture::<S>::new();
    let object = r#"{"A":[1,"x"],"b":null}"#;
    it.send(
        "s",
        &format!(r#"[{{"n": 1, "o": {object}}}, {{"n": 2, "o": "Text"}}, {{"n": 3, "o": 5}}]"#),
    );
    for (expression, expected) in [
        ("lower(o)", json!([object.to_lowercase(), "text", "5"])),
        ("substr(o, 1, 4)", json!(["{\"A\"", "Text", "5"])),
        ("SUBSTRING(o, 2, 3)", json!(["\"A\"", "ext", ""])),
        ("length(o)", json!([object.len(), 4, 1])),
        ("'<' || o || '>'", json!([format!("<{object}>"), "<Text>", "<5>"])),
        ("trim(o, '{}')", json!([&object[1..object.len() - 1], "Text", "5"])),
        ("trim(o)", json!([object, "Text", "5"])),
        ("replace(o, 'x', 'y')", json!([object.replace('x', "y"), "Te".to_owned() + "yt", "5"])),
        ("CAST(o AS TEXT)", json!([object, "Text", "5"])),
        ("upper(coalesce(o, 'none'))", json!([object.to_uppercase(), "TEXT", "5"])),
        ("lower(CASE WHEN n < 9 THEN o END)", json!([object.to_lowercase(), "text", "5"])),
        ("instr(o, 'x')", json!([object.find('x').unwrap() + 1, 3, 0])),
        ("o LIKE '{%'", json!([true, false, false])),
        ("o", json!([{"A": [1, "x"], "b": null}, "Text", 5])),
    ] {
        let rows = it.query(&format!("SELECT {expression} AS x FROM s ORDER BY n"));
        let values: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["x"].clone()).collect();
        assert_eq!(json!(values), expected, "{expression}");
    }
    assert_eq!(
        it.query("SELECT string_agg(o, ';') AS x FROM (SELECT o FROM s ORDER BY n)"),
        json!([{"x": format!("{object};Text;5")}])
    );
    let kept = "SELECT lower(o) AS o, string_agg(o, '') AS all, min(substr(o, 1, 1)) AS first FROM s GROUP BY 1 ORDER BY 1";
    let rows = it.query(kept);
    it.process("p", kept).unwrap();
    assert_eq!(it.query("SELECT * FROM p ORDER BY o"), rows);
    it.process("q", "SELECT lower(o) AS o, count(*) AS n FROM s GROUP BY 1").unwrap();
    assert_eq!(it.query("SELECT n FROM q WHERE o LIKE '%[1,\"x\"]%'"), json!([{"n": 1}]));
}

pub(in crate::engine) fn q9_numbers_and_texts_are_not_compared<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send(
        "s",
        r#"[{"n": 1, "x": 7, "o": {"v": 7}}, {"n": 2, "x": 70, "o": {"v": 70}}, {"n": 3, "x": "70", "o": {"v": "70"}},
            {"n": 4, "x": "m", "o": {}}, {"n": 5, "x": {"a": 1}}, {"n": 6, "x": null}]"#,
    );
    let found = |condition: &str| {
        let rows = it.query(&format!("SELECT n FROM s WHERE {condition} ORDER BY n"));
        rows.as_array().unwrap().iter().map(|row| row["n"].to_string()).collect::<String>()
    };
    for (condition, expected) in [
        ("x > 50", "2"),
        ("50 < x", "2"),
        ("x >= -1", "12"),
        ("NOT x > 50", "1"),
        ("x < 50.5", "1"),
        ("x BETWEEN 1 AND 100", "12"),
        ("x < 'n'", "34"),
        ("x >= '6'", "34"),
        ("o ->> 'v' > 50", "2"),
        ("CAST(x AS REAL) > 50", "23"),
    ] {
        assert_eq!(found(condition), expected, "{condition}");
    }
    it.process("p", "SELECT count(*) AS n, x > 50 AS more FROM s WHERE x > 5 GROUP BY 2").unwrap();
    assert_eq!(
        it.query("SELECT * FROM p ORDER BY more"),
        json!([{"n": 1, "more": false}, {"n": 1, "more": true}])
    );
    let parameters = [("least".to_owned(), json!(50))];
    let rows = it.engine.query("SELECT n FROM s WHERE x > :least", &parameters).unwrap();
    assert_eq!(&rows.json[..], br#"[{"n":2}]"#);
}

pub(in crate::engine) fn q9_like_tells_letters_apart_and_ilike_does_not<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"p": "Home"}, {"p": "home"}, {"p": "a_b"}, {"p": "axb"}]"#);
    for (condition, expected) in [
        ("p LIKE 'h%'", json!(["home"])),
        ("p ILIKE 'h%'", json!(["Home", "home"])),
        ("p NOT ILIKE 'h%'", json!(["a_b", "axb"])),
        ("p NOT LIKE 'h%' AND p LIKE '%o%'", json!(["Home"])),
        ("p ILIKE 'A!_%' ESCAPE '!'", json!(["a_b"])),
    ] {
        let rows = it.query(&format!("SELECT p FROM s WHERE {condition} ORDER BY p"));
        let values: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["p"].clone()).collect();
        assert_eq!(json!(values), expected, "{condition}");
    }
    assert_eq!(it.query("SELECT p ILIKE 'HOME' AS x FROM s LIMIT 1"), json!([{"x": true}]));
}

pub(in crate::engine) fn q9_what_hands_on_a_truth_value_gives_one<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"n": 1, "ok": true}, {"n": 2, "ok": null}]"#);
    for expression in [
        "coalesce(ok, false)",
        "ifnull(ok, n > 5)",
        "CASE WHEN ok THEN true ELSE false END",
        "CASE n WHEN 1 THEN ok WHEN 2 THEN n = 1 ELSE NULL END",
        "iif(n = 1, ok, false)",
        "coalesce(nullif(ok, false), false)",
        "coalesce(max(ok) OVER (ORDER BY n ROWS CURRENT ROW), false)",
    ] {
        let rows = it.query(&format!("SELECT {expression} AS x FROM s ORDER BY n"));
        assert_eq!(rows, json!([{"x": true}, {"x": false}]), "{expression}");
    }
    it.process("p", "SELECT coalesce(ok, false) AS ok, count(*) AS n FROM s GROUP BY 1").unwrap();
    assert_eq!(it.query("SELECT ok FROM p ORDER BY ok"), json!([{"ok": false}, {"ok": true}]));
}
