//! A `MariaDB` server of one's own: no service of the machine, no port, and gone with the test.

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{LONG, helpers::is_root, temp_dir::TempDir};

/// A server that only this process knows: its socket is in a folder that goes with it.
#[derive(Debug)]
pub struct MariaDb {
    folder: TempDir,
    child: Child,
}

impl MariaDb {
    /// Starts one with an empty database `test`.
    pub fn start() -> Self {
        let folder = TempDir::new();
        let data = folder.path().join("data");
        let user = if is_root() { Some("--user=root") } else { None };
        let made = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .args(user)
            .arg(format!("--datadir={}", data.display()))
            .env("TMPDIR", folder.path())
            .output()
            .expect("MariaDB is not installed: apt-get install mariadb-server");
        assert!(
            made.status.success(),
            "mariadb-install-db failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--skip-networking", "--skip-grant-tables"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--local-infile=1"])
            .args(user)
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", folder.path().join(SOCKET).display()))
            .arg(format!("--pid-file={}", folder.path().join("pid").display()))
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("MariaDB is not installed: apt-get install mariadb-server");
        let server = Self { folder, child };
        let end = Instant::now() + LONG;
        while !server
            .client("mysql", "SELECT 1")
            .output()
            .unwrap()
            .status
            .success()
        {
            if Instant::now() > end {
                let log = fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
                panic!("MariaDB does not start:\n{log}");
            }
            sleep(Duration::from_millis(50));
        }
        server.execute("mysql", "CREATE DATABASE test CHARACTER SET utf8mb4");
        server
    }

    /// What a statement writes with `mysql --batch`.
    #[track_caller]
    pub fn execute(&self, database: &str, sql: &str) -> Vec<u8> {
        let output = self.client(database, sql).output().unwrap();
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Executes statements that may be many.
    #[track_caller]
    pub fn execute_all(&self, database: &str, sql: &str) {
        let mut client = self.mysql(database);
        let mut child = client.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn client(&self, database: &str, sql: &str) -> Command {
        let mut command = self.mysql(database);
        command.args(["--batch", "-e", sql]);
        command
    }

    fn mysql(&self, database: &str) -> Command {
        let mut command = Command::new("mysql");
        command
            .args([
                "--no-defaults",
                "--local-infile=1",
                "--default-character-set=utf8mb4",
            ])
            .arg(format!("--socket={}", self.folder.path().join(SOCKET).display()))
            .arg(database)
            .current_dir("/");
        command
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // What it holds goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SOCKET: &str = "socket";
