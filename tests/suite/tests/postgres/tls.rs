//! Connections to a database that are encrypted, and whom they trust.

use std::fs;
use std::io;

use serde_json::json;
use stride_local::Local;
use stride_tests::wire::tls::Authority;
use stride_tests::{Over, watchdog};

use crate::child::KEY;
use crate::cluster::{Programs, Server};

const HOST: &str = "db.example";
const PASSWORD: &str = "open-sesame";

fn start(url: &str) -> io::Result<Local> {
    Local::builder().secret_key(KEY).database(url, None).start()
}

#[test]
fn a_certificate_is_checked_with_its_name() {
    let Some(programs) = Programs::find("a_certificate_is_checked_with_its_name") else { return };
    watchdog(move || {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let Some((database, port)) = Server::secured(&programs, &authority, HOST) else { return };
        let sql = |sql: &str| database.sql(sql);
        sql(&format!("CREATE ROLE stride LOGIN PASSWORD '{PASSWORD}'"));
        sql("CREATE DATABASE stride OWNER stride");
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, authority: &Authority| {
            let file = folder.path().join(name);
            fs::write(&file, authority.pem()).unwrap();
            file.display().to_string()
        };
        let (root, strange) = (file("ca.pem", &authority), file("other.pem", &stranger));
        // The host is for the certificate, and no name is looked up.
        let url = |host: &str, password: &str, options: &str| {
            format!(
                "postgres://stride:{password}@{host}:{port}/stride?hostaddr=127.0.0.1&{options}"
            )
        };

        let verified = url(HOST, PASSWORD, &format!("sslmode=verify-full&sslrootcert={root}"));
        let required = url(HOST, PASSWORD, &format!("sslmode=require&sslrootcert={root}"));
        let unverified = url("other.example", PASSWORD, "");
        for url in [&verified, &required, &unverified] {
            let local = start(url).unwrap();
            let client = Over::ureq().client(&local.endpoint());
            let stored = client.post("/collect/s", &json!({"x": 1})).unwrap();
            assert_eq!(stored.status(), 200, "{stored:?}");
            let query = client.post("/analyze", &json!({"query": "SELECT x FROM s LIMIT 1"}));
            assert_eq!(query.unwrap().body(), r#"[{"x":1}]"#);
            let encrypted = "SELECT count(*) > 2 AND bool_and(ssl) FROM pg_stat_ssl
                JOIN pg_stat_activity USING (pid) WHERE usename = 'stride'";
            assert_eq!(sql(encrypted), "t");
        }

        let by = |root: &str| format!("sslmode=require&sslrootcert={root}");
        for (url, why) in [
            (url("other.example", PASSWORD, &by(&root)), "certificate not valid for name"),
            (url(HOST, PASSWORD, &by(&strange)), "invalid peer certificate"),
            (url(HOST, PASSWORD, "sslmode=disable"), "no pg_hba.conf entry"),
            (url(HOST, "abracadabra", &by(&root)), "password authentication failed"),
            (url(HOST, PASSWORD, &by("/nowhere/ca.pem")), "cannot be read"),
            (url(HOST, PASSWORD, "sslmode=verify-ca"), "`sslmode`"),
        ] {
            let error = start(&url).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains(PASSWORD) && !error.contains("abracadabra"), "{error}");
        }
    });
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_required() {
    let test = "a_server_without_tls_is_refused_where_it_is_required";
    let Some(programs) = Programs::find(test) else { return };
    watchdog(move || {
        let database = Server::start(&programs);
        let error = start(&format!("{}?sslmode=require", database.url("postgres"))).unwrap_err();
        assert!(error.to_string().contains("server does not support TLS"), "{error}");
    });
}
