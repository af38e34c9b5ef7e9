//! Real PostgreSQL servers, each in a temporary folder.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use stride_tests::wire::tls::Authority;
use tempfile::TempDir;

/// Where the programs of a PostgreSQL are, such as `initdb`.
const PROGRAMS: &str = "STRIDE_TEST_POSTGRES_BIN";

/// Where to put servers: whoever set it ends those that a test was killed before it could end.
const FOLDER: &str = "STRIDE_TEST_POSTGRES_FOLDER";

/// `nobody` and its group: PostgreSQL does not run as root.
const ORDINARY: u32 = 65534;

/// Far longer than a server takes for anything here: a limit that must not be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// The superuser of the servers here, which let in whoever reaches their sockets.
const USER: &str = "postgres";

/// The programs of one version of PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Programs(PathBuf);

impl Programs {
    /// Those that the environment names. Without them it says so, past what the test harness captures.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let found = std::env::var_os(PROGRAMS).map(PathBuf::from);
        if found.is_none() {
            drop(writeln!(io::stderr(), "SKIPPED {test}: {PROGRAMS} is not set"));
        }
        Some(Self(found?))
    }

    /// One of them, to be run by an ordinary user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.0.join(program));
        if is_root() {
            command.uid(ORDINARY).gid(ORDINARY);
        }
        for (name, _) in std::env::vars_os() {
            // PostgreSQL would take settings from these.
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// A server, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    programs: Programs,
    process: Option<Child>,
    /// Holds its data, its socket and its log.
    folder: TempDir,
    /// Further settings.
    settings: Vec<String>,
}

impl Server {
    /// A new one.
    pub(crate) fn start(programs: &Programs) -> Self {
        let mut server = Self::initialised(programs);
        server.run();
        server
    }

    /// A new one that lets in whoever knows a password. The superuser still needs none.
    pub(crate) fn with_passwords(programs: &Programs) -> Self {
        let mut server = Self::initialised(programs);
        server.let_in("local all all scram-sha-256");
        server.run();
        server
    }

    /// A new one that others than the superuser reach by TLS alone, at a port of the loopback, with a password.
    /// It shows a certificate for `host`. `None`, which is said, if it was built without TLS.
    pub(crate) fn secured(
        programs: &Programs,
        authority: &Authority,
        host: &str,
    ) -> Option<(Self, u16)> {
        let mut server = Self::initialised(programs);
        server.let_in("hostssl all all all scram-sha-256");
        let (certificate, key) = authority.pair(host);
        server.settings = vec!["ssl=on".to_owned(), "listen_addresses=127.0.0.1".to_owned()];
        for (setting, pem) in [("ssl_cert_file", certificate), ("ssl_key_file", key)] {
            let file = server.folder.path().join(setting);
            server.write(&file, &pem);
            server.settings.push(format!("{setting}={}", file.display()));
        }
        for _ in 0..20 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            server.settings.push(format!("port={port}"));
            // Another may have taken it by now.
            if server.runs() {
                return Some((server, port));
            }
            server.settings.pop();
        }
        let why = fs::read_to_string(server.log()).unwrap();
        assert!(why.contains("SSL is not supported by this build"), "{why}");
        drop(writeln!(io::stderr(), "SKIPPED TLS to the database: {}", why.trim()));
        None
    }

    fn initialised(programs: &Programs) -> Self {
        let server = Self::new(programs);
        let data = server.data();
        programs.run(
            "initdb",
            &[
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                &format!("--username={USER}"),
                &format!("--pgdata={}", data.display()),
            ],
        );
        server
    }

    /// Lets in whom the line says, as well as the superuser.
    fn let_in(&self, line: &str) {
        self.write(&self.data().join("pg_hba.conf"), &format!("local all {USER} trust\n{line}\n"));
    }

    /// Writes a file that only the server's user can read.
    fn write(&self, file: &Path, text: &str) {
        fs::write(file, text).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            chown(file, Some(ORDINARY), Some(ORDINARY)).unwrap();
        }
    }

    /// A standby of this server. From here on it commits nothing that the standby does not have.
    pub(crate) fn synchronous_standby(&self) -> Self {
        let mut standby = Self::new(&self.programs);
        let from = format!("host={} user={USER} application_name=standby", self.host());
        let to = standby.data().display().to_string();
        let arguments = ["-d", &from, "-D", &to, "-R", "-X", "stream", "-c", "fast"];
        self.programs.run("pg_basebackup", &arguments);
        standby.run();
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
        self.sql("SELECT pg_reload_conf()");
        wait_until("the standby follows", || {
            self.sql("SELECT sync_state FROM pg_stat_replication") == "sync"
        });
        standby
    }

    fn new(programs: &Programs) -> Self {
        // A short path: that of a socket has 107 bytes at most.
        let place = std::env::var_os(FOLDER).unwrap_or_else(|| "/tmp".into());
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in(place).unwrap();
        if is_root() {
            chown(folder.path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
        }
        Self { programs: programs.clone(), process: None, folder, settings: Vec::new() }
    }

    /// Starts it over its data, and waits until it takes connections.
    pub(crate) fn run(&mut self) {
        assert!(self.runs(), "{}", fs::read_to_string(self.log()).unwrap());
    }

    fn runs(&mut self) -> bool {
        let log = File::create(self.log()).unwrap();
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(self.data());
        for setting in [
            // Only a socket in the folder: there is no port that another could have.
            "listen_addresses=",
            &format!("unix_socket_directories={}", self.folder.path().display()),
            // Left behind by a kill, it would stay in memory for ever.
            "dynamic_shared_memory_type=mmap",
        ] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let mut ended = false;
        wait_until("the server starts", || {
            ended = self.process.as_mut().unwrap().try_wait().unwrap().is_some();
            let host = self.host();
            let mut ready = self.programs.command("pg_isready");
            ready.args(["-q", "-h", &host, "-p", self.port()]);
            ended || ready.status().unwrap().success()
        });
        if ended {
            self.process = None;
        }
        !ended
    }

    /// With SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
        // What a killed server leaves in the system's memory, of which its lock file has key and number.
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        if let Some(number) = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            drop(Command::new("ipcrm").args(["-m", number]).status());
        }
    }

    /// Makes a standby a server of its own.
    pub(crate) fn promote(&self) {
        let data = self.data().display().to_string();
        self.programs.run("pg_ctl", &["promote", "-w", "-D", &data]);
    }

    /// The rows that a statement gives, as psql prints them.
    pub(crate) fn sql(&self, statement: &str) -> String {
        self.sql_in("postgres", statement)
    }

    /// The same in another of its databases.
    pub(crate) fn sql_in(&self, database: &str, statement: &str) -> String {
        let (host, port) = (self.host(), self.port());
        let to = ["-h", &host, "-p", port, "-U", USER, "-d", database];
        let arguments = [&["-XAtq"], &to[..], &["-c", statement]].concat();
        self.programs.run("psql", &arguments).trim_end().to_owned()
    }

    fn port(&self) -> &str {
        self.settings.iter().find_map(|it| it.strip_prefix("port=")).unwrap_or("5432")
    }

    /// A connection string for one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        url(&[self], database)
    }

    pub(crate) fn host(&self) -> String {
        self.folder.path().display().to_string()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let data = self.data().display().to_string();
            let mut stop = self.programs.command("pg_ctl");
            let stopped = stop.args(["stop", "-s", "-m", "immediate", "-D", &data]).status();
            if !stopped.is_ok_and(|it| it.success()) {
                drop(process.kill());
            }
            drop(process.wait());
        }
    }
}

/// A connection string of these servers, one of which can be written to.
pub(crate) fn url(servers: &[&Server], database: &str) -> String {
    let hosts: Vec<String> =
        servers.iter().map(|server| server.host().replace('/', "%2F")).collect();
    format!("postgres://{USER}@{}/{database}", hosts.join(","))
}

/// Waits for what another process does.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the failover below stands on: nothing of ours is in it.
    #[test]
    fn a_standby_has_what_a_killed_primary_has_committed() {
        let Some(programs) = Programs::find("a_standby_has_what_a_killed_primary_has_committed")
        else {
            return;
        };
        stride_tests::watchdog(move || {
            let mut primary = Server::start(&programs);
            primary.sql("CREATE TABLE t (n int)");
            let standby = primary.synchronous_standby();
            primary.sql("INSERT INTO t SELECT generate_series(1, 1000)");
            primary.kill();
            standby.promote();
            assert_eq!(standby.sql("SELECT count(*) FROM t"), "1000");
            standby.sql("INSERT INTO t VALUES (0)");
        });
    }
}
