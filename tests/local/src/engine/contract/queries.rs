//! Streams as relations.

use serde_json::json;

use super::{Engine as _, EngineError, Fixture, Subject};

pub(in crate::engine) fn values_come_back_as_the_json_they_were<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send(
        "s",
        r#"{"text": "é\"\n", "int": 5, "float": 1.5, "yes": true, "no": false, "nothing": null,
            "list": [1, {"a": true}], "object": {"b": {"c": null}}, "odd key'\"": 1}"#,
    );
    let row = &it.query("SELECT * FROM s")[0];
    assert_eq!(row["text"], "é\"\n");
    assert_eq!((&row["int"], &row["float"]), (&json!(5), &json!(1.5)));
    assert_eq!(
        (&row["yes"], &row["no"], &row["nothing"]),
        (&json!(true), &json!(false), &json!(null))
    );
    assert_eq!(row["list"], json!([1, {"a": true}]));
    assert_eq!(row["object"], json!({"b": {"c": null}}));
    assert_eq!(row["odd key'\""], 1);
    assert!(row["$timestamp"].is_string());
    assert_eq!(row["$id"].as_str().unwrap().len(), 32);
    assert_eq!(row.as_object().unwrap().len(), 11);
}

pub(in crate::engine) fn columns_are_the_keys_that_events_have_had<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"a": 1}, {"b": "x"}, {"A": 3}]"#);
    let rows = it.query("SELECT a, b, c FROM s ORDER BY a");
    assert_eq!(
        rows,
        json!([
            {"a": null, "b": "x", "c": null},
            {"a": null, "b": null, "c": null},
            {"a": 1, "b": null, "c": null},
        ])
    );
    // In SQL `a` and `A` are one name; here they are two keys.
    assert_eq!(it.query("SELECT * FROM s WHERE a = 1")[0]["A"], json!(null));
    assert_eq!(it.query(r#"SELECT "A" FROM s WHERE "A" = 3"#), json!([{"A": 3}]));
    // What is only mentioned is no column of `*`.
    assert!(it.query("SELECT * FROM s WHERE other IS NULL")[0].get("other").is_none());
    assert_eq!(it.query("SELECT count(*) FROM s"), json!([{"count": 3}]));
}

pub(in crate::engine) fn a_stream_that_nobody_has_written_to_is_empty<S: Subject>() {
    let it = Fixture::<S>::new();
    assert_eq!(it.query("SELECT * FROM nobody"), json!([]));
    assert_eq!(it.query("SELECT a, count(*) FROM nobody GROUP BY a"), json!([]));
    assert_eq!(it.query("SELECT count(*), sum(a) FROM nobody"), json!([{"count": 0, "sum": null}]));
    // Not even what the engine itself keeps can be seen by its name.
    for name in ["events", "streams", "sqlite_schema", "processes"] {
        assert_eq!(it.query(&format!("SELECT * FROM {name}")), json!([]));
    }
}

pub(in crate::engine) fn nested_values_are_reached_by_operators<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"user": {"plan": "pro", "age": 5, "tags": ["a", "b"]}}, {"user": 5}, {"user": "no JSON"}, {}]"#);
    assert_eq!(
        it.query("SELECT user ->> 'plan', user -> 'tags' ->> 0 AS first, user ->> '$.tags[1]' AS second FROM s WHERE user ->> 'age' = 5"),
        json!([{"plan": "pro", "first": "a", "second": "b"}])
    );
    assert_eq!(
        it.query("SELECT value FROM s, json_each(s.user -> 'tags') ORDER BY value"),
        json!([{"value": "a"}, {"value": "b"}])
    );
}

pub(in crate::engine) fn joins_parts_and_subqueries_find_their_columns<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("users", r#"[{"uid": 1, "name": "a"}, {"uid": 2, "name": "b"}]"#);
    it.send("clicks", r#"[{"user": 1, "url": "x"}, {"user": 1, "url": "y"}]"#);
    for sql in [
        "SELECT name, count(url) AS n FROM users LEFT JOIN clicks ON uid = user GROUP BY name ORDER BY name",
        "SELECT u.name, count(c.url) AS n FROM users u LEFT JOIN clicks AS c ON u.uid = c.user GROUP BY u.name ORDER BY u.name",
        "WITH n AS (SELECT user, count(*) AS k FROM clicks GROUP BY user) \
         SELECT name, coalesce(k, 0) AS n FROM users LEFT JOIN n ON n.user = uid ORDER BY name",
        "SELECT name, (SELECT count(*) FROM clicks WHERE user = uid) AS n FROM users ORDER BY n DESC",
        "SELECT * FROM (SELECT name, n FROM users JOIN (SELECT user, count(*) n FROM clicks GROUP BY 1 UNION ALL SELECT 2, 0) ON user = uid) ORDER BY name",
    ] {
        assert_eq!(it.query(sql), json!([{"name": "a", "n": 2}, {"name": "b", "n": 0}]), "{sql}");
    }
    // A column that nobody has had makes no join ambiguous.
    let sql = "SELECT count(*) FROM users JOIN clicks ON uid = user WHERE missing IS NULL";
    assert_eq!(it.query(sql), json!([{"count": 2}]));
    assert_eq!(
        it.query("SELECT a.url AS one, b.url AS two FROM clicks a JOIN clicks b ON a.user = b.user AND a.url < b.url"),
        json!([{"one": "x", "two": "y"}])
    );
    assert_eq!(
        it.query("SELECT *, 1 AS one FROM users u JOIN (SELECT 1 AS x) WHERE uid = x")[0]["name"],
        "a"
    );
    let ambiguous = it.try_query(r#"SELECT "$id" FROM users JOIN clicks ON uid = user"#);
    assert!(matches!(ambiguous, Err(EngineError::Invalid(why)) if why.contains("ambiguous")));
}

pub(in crate::engine) fn a_part_of_the_query_hides_a_stream_of_its_name<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"a": 1}"#);
    assert_eq!(it.query("WITH s AS (SELECT 2 AS a) SELECT a FROM s"), json!([{"a": 2}]));
}

pub(in crate::engine) fn results_may_be_named_like_keys<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"x": "A", "y": 1}, {"x": "a", "y": 2}]"#);
    assert_eq!(
        it.query("SELECT lower(x) AS low, sum(y) FROM s GROUP BY low"),
        json!([{"low": "a", "sum": 3}])
    );
    assert_eq!(it.query("SELECT y AS x FROM s ORDER BY x DESC"), json!([{"x": 2}, {"x": 1}]));
    assert_eq!(it.query("SELECT y, y FROM s ORDER BY 1 LIMIT 1"), json!([{"y": 1, "y_2": 1}]));
}

pub(in crate::engine) fn true_and_false_stay_what_they_are<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"ok": true, "n": 1}, {"ok": false, "n": 0}, {"ok": null, "n": 1}]"#);
    let rows = json!([{"ok": false}, {"ok": null}, {"ok": true}]);
    assert_eq!(it.query("SELECT ok FROM s ORDER BY n, ok"), rows);
    assert_eq!(
        it.query("SELECT * FROM (WITH t AS (SELECT ok, n FROM s) SELECT ok FROM t ORDER BY n, ok)"),
        rows
    );
    assert_eq!(it.query("SELECT n FROM s WHERE ok"), json!([{"n": 1}]));
    assert_eq!(it.query("SELECT n > 0 AS more FROM s WHERE NOT ok"), json!([{"more": false}]));
    assert_eq!(it.query("SELECT max(ok) AS any FROM s"), json!([{"any": true}]));
}

pub(in crate::engine) fn thousands_of_keys_do_no_harm<S: Subject>() {
    let it = Fixture::<S>::new();
    for batch in 0..3 {
        let keys: Vec<String> = (0..1000).map(|key| format!("\"k{batch}_{key}\": {key}")).collect();
        it.send("s", &format!("{{{}}}", keys.join(",")));
    }
    assert_eq!(it.query("SELECT count(*) AS n FROM s WHERE k2_999 = 999"), json!([{"n": 1}]));
    assert_eq!(it.query("SELECT * FROM s LIMIT 1")[0].as_object().unwrap().len(), 1000);
}

pub(in crate::engine) fn windows_are_about_when_events_happened<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send(
        "s",
        r#"[{"n": 1, "$timestamp": "2015-05-05T23:40:27Z"}, {"n": 2, "$timestamp": "2999-05-05T23:40:27+02:00"},
            {"n": 3}]"#,
    );
    let after = |sql: &str| it.query(&format!("SELECT n FROM s WHERE {sql} ORDER BY n"));
    assert_eq!(after("$timestamp > now() - INTERVAL '5 minutes'"), json!([{"n": 2}, {"n": 3}]));
    assert_eq!(after(r#""$timestamp" < now() - INTERVAL '1 day'"#), json!([{"n": 1}]));
    // 23:40:27+02:00 is before 22:00Z, though not as a text.
    assert_eq!(after("$timestamp > TIMESTAMP '2999-05-05T22:00:00Z'"), json!([]));
    assert_eq!(
        it.query("SELECT date_trunc('minute', $timestamp) AS minute FROM s WHERE n = 2"),
        json!([{"minute": "2999-05-05T21:40:00.000000Z"}])
    );
}

pub(in crate::engine) fn parameters_stand_for_values<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"day": "2015-05-05", "n": 1}, {"day": "2015-05-06", "n": 2}]"#);
    let given = [("start".to_owned(), json!("2015-05-06")), ("other".to_owned(), json!("x"))];
    let answer = it.engine.query("SELECT n FROM s WHERE day >= :start", &given).unwrap();
    assert_eq!(&answer.json[..], br#"[{"n":2}]"#);
    let number = [("n".to_owned(), json!(1))];
    let answer = it.engine.query("SELECT n FROM s WHERE n <= :n", &number).unwrap();
    assert_eq!(&answer.json[..], br#"[{"n":1}]"#);
    let missing = it.try_query("SELECT n FROM s WHERE n = :n").unwrap_err();
    assert!(missing.to_string().contains(":n"), "{missing}");
}

pub(in crate::engine) fn saved_queries_are_kept_by_name<S: Subject>() {
    let it = Fixture::<S>::new();
    let engine = &it.engine;
    engine.save_query("b", "SELECT * FROM s").unwrap();
    engine.save_query("a", "SELECT 1").unwrap();
    engine.save_query("a", "SELECT 2").unwrap();
    assert_eq!(engine.saved_queries().unwrap(), ["a", "b"]);
    assert_eq!(engine.saved_query("a").unwrap(), "SELECT 2");
    assert!(matches!(engine.save_query("c", "SELEC 1"), Err(EngineError::Invalid(_))));
    assert!(matches!(engine.save_query("c", "SELECT nope(1)"), Err(EngineError::Invalid(_))));
    engine.delete_query("a").unwrap();
    assert!(matches!(engine.saved_query("a"), Err(EngineError::NotFound(_))));
    assert!(matches!(engine.delete_query("a"), Err(EngineError::NotFound(_))));
}

pub(in crate::engine) fn columns_that_are_joined_by_name_come_once<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"n": 1, "a": 2, "$id": "s"}"#);
    it.send("t", r#"{"n": 1, "b": 3, "$id": "t"}"#);
    let row = &it.query("SELECT * FROM s JOIN t USING (n)")[0];
    assert_eq!((&row["n"], &row["a"], &row["b"]), (&json!(1), &json!(2), &json!(3)));
    assert_eq!((&row["$id"], &row["$id_2"]), (&json!("s"), &json!("t")));
    assert!(row.get("n_2").is_none());
}

pub(in crate::engine) fn a_condition_is_about_keys_and_not_about_results<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("u", r#"[{"user_id": 1, "id": 5, "count": 4}, {"user_id": 2, "id": 6, "count": 1}]"#);
    assert_eq!(it.query("SELECT user_id AS id FROM u WHERE id = 5"), json!([{"id": 1}]));
    assert_eq!(it.query("SELECT count(*) FROM u WHERE count > 3"), json!([{"count": 1}]));
    assert_eq!(
        it.query(
            "SELECT user_id, count(*) AS n FROM u GROUP BY user_id HAVING n = 1 ORDER BY n, user_id"
        ),
        json!([{"user_id": 1, "n": 1}, {"user_id": 2, "n": 1}])
    );
}

pub(in crate::engine) fn parts_may_be_called_like_the_engines_own_tables<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"a": 1}, {"a": 2}]"#);
    let sql = "WITH events AS (SELECT a FROM s) SELECT count(*) FROM events, s";
    assert_eq!(it.query(sql), json!([{"count": 4}]));
    assert_eq!(it.query("WITH c(x) AS (SELECT 1) SELECT count(*) FROM c"), json!([{"count": 1}]));
}

pub(in crate::engine) fn a_part_does_not_see_what_stands_beside_it<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"b": 1}"#);
    it.send("t", r#"{"c": 1}"#);
    assert_eq!(it.query("SELECT d.v FROM s, (SELECT b AS v FROM t) d"), json!([{"v": null}]));
    assert_eq!(it.query("SELECT `q`.* FROM (SELECT 1 AS x) AS `q`"), json!([{"x": 1}]));
}

pub(in crate::engine) fn a_result_of_a_keys_name_hides_it_only_where_sql_lets_it<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("u", r#"[{"user_id": 1, "id": 5, "count": 4}, {"user_id": 2, "id": 6}]"#);
    assert_eq!(it.query("SELECT user_id AS id FROM u WHERE id = 5"), json!([{"id": 1}]));
    assert_eq!(it.query("SELECT count(*) FROM u WHERE count > 3"), json!([{"count": 1}]));
    assert_eq!(
        it.query("SELECT -user_id AS id FROM u WHERE id > 4 ORDER BY id"),
        json!([{"id": -2}, {"id": -1}])
    );
    assert_eq!(
        it.query("SELECT user_id > 1 AS id, count(*) FROM u GROUP BY id HAVING count > 0"),
        json!([{"id": false, "count": 1}, {"id": true, "count": 1}])
    );
}

pub(in crate::engine) fn what_is_joined_by_name_comes_first_and_once<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"a": 1, "n": 7, "$id": "x", "$timestamp": "2015-05-05T23:40:27Z"}"#);
    it.send("t", r#"{"b": 2, "n": 7}"#);
    let rows = it.query("SELECT * FROM (SELECT a, n FROM s) AS s JOIN t USING (n)");
    let row = rows[0].as_object().unwrap();
    assert_eq!((&row["n"], &row["a"], &row["b"]), (&json!(7), &json!(1), &json!(2)));
    assert_eq!(row.len(), 5, "{row:?}");
    let both = it.query("SELECT * FROM s JOIN t USING (n)");
    assert_eq!((&both[0]["a"], &both[0]["b"]), (&json!(1), &json!(2)));
    assert_eq!(it.query("SELECT count(*) FROM s JOIN t USING (missing)"), json!([{"count": 0}]));
}

pub(in crate::engine) fn names_of_the_engine_mean_nothing_in_a_query<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"a": 1}, {"a": 2}]"#);
    assert_eq!(
        it.query("WITH events AS (SELECT * FROM s) SELECT count(*) FROM events"),
        json!([{"count": 2}])
    );
    assert_eq!(
        it.query("WITH events AS (SELECT 1 AS place) SELECT count(*) FROM events, s"),
        json!([{"count": 2}])
    );
}

pub(in crate::engine) fn a_query_in_from_knows_nothing_of_its_neighbours<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"a": 1, "b": 2}"#);
    it.send("t", r#"{"c": 3}"#);
    assert_eq!(it.query("SELECT d.v FROM s, (SELECT b AS v FROM t) d"), json!([{"v": null}]));
    // But it knows of what encloses the query that it is in.
    assert_eq!(
        it.query("SELECT (SELECT v FROM (SELECT a + c AS v FROM t)) AS sum FROM s"),
        json!([{"sum": 4}])
    );
}

pub(in crate::engine) fn wildcards_are_spelled_out_however_they_are_written<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"a": 1, "$id": "x", "$timestamp": "2015-05-05T23:40:27.000000Z"}"#);
    let row = json!([{"a": 1, "$id": "x", "$timestamp": "2015-05-05T23:40:27.000000Z"}]);
    for sql in ["SELECT `t`.* FROM s AS `t`", "SELECT \"t\".* FROM s AS t", "SELECT s.* FROM s"] {
        assert_eq!(it.query(sql), row, "{sql}");
    }
    assert_eq!(
        it.query("SELECT * FROM (SELECT a FROM s), (SELECT a + 1 AS b FROM s)"),
        json!([{"a": 1, "b": 2}])
    );
}

pub(in crate::engine) fn keys_may_be_words_of_sql<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"{"commit": 1, "raise": 2, "rowid": 3, "place": 4, "order": 5}"#);
    assert_eq!(
        it.query(r#"SELECT commit, raise, rowid, place, "order" FROM s"#),
        json!([{"commit": 1, "raise": 2, "rowid": 3, "place": 4, "order": 5}])
    );
}

pub(in crate::engine) fn results_and_relations_may_be_called_by_words_of_sql<S: Subject>() {
    let it = Fixture::<S>::new();
    it.send("s", r#"[{"n": 1}, {"n": 2}]"#);
    assert_eq!(
        it.query("SELECT n AS all, nothing.n AS commit FROM s AS nothing WHERE nothing.n > 0 ORDER BY all DESC LIMIT 1"),
        json!([{"all": 2, "commit": 2}])
    );
    it.process("p", "SELECT n AS index, count(*) AS nothing FROM s GROUP BY index").unwrap();
    assert_eq!(
        it.query("SELECT sum(nothing) AS each FROM p WHERE index = 1"),
        json!([{"each": 1}])
    );
}
