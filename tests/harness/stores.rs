//! Real databases and a real Redis, each in a folder of its own, ended by their process id.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::node::free_port;
use super::{Folder, eventually};

/// A server and where it keeps its files.
pub struct Server {
    child: Child,
    pub port: u16,
    folder: Folder,
    client: Vec<String>,
}

/// Neither database runs as root.
fn as_user(command: &mut Command, folder: &Folder) {
    const NOBODY: u32 = 65534;
    let whoami = Command::new("id").arg("-u").output().expect("id").stdout;
    if whoami != b"0\n" {
        return;
    }
    let owned = Command::new("chown").arg("-R").arg("65534:65534").arg(folder.path("")).status();
    assert!(owned.expect("chown").success());
    command.uid(NOBODY).gid(NOBODY);
}

fn quiet(command: &mut Command, folder: &Folder, log: &str) {
    let log = fs::File::create(folder.path(log)).expect("a log");
    let errors = log.try_clone().expect("a clone");
    command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/");
}

impl Server {
    pub fn postgres() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL; see tests/tools.sh");
        let mut versions: Vec<PathBuf> =
            versions.map(|entry| entry.expect("an entry").path()).collect();
        versions.sort();
        let bin = versions.pop().expect("a version").join("bin");
        let folder = Folder::new();
        let data = folder.path("data");
        fs::create_dir(&data).expect("a folder");
        let mut init = Command::new(bin.join("initdb"));
        init.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]);
        as_user(&mut init, &folder);
        quiet(&mut init, &folder, "init.log");
        assert!(init.status().expect("initdb").success(), "{}", folder.path("").display());
        let port = free_port();
        let mut server = Command::new(bin.join("postgres"));
        let listen = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"];
        server.arg("-D").arg(&data).arg("-p").arg(port.to_string()).args(listen);
        server.arg("-k").arg(folder.path(""));
        as_user(&mut server, &folder);
        quiet(&mut server, &folder, "server.log");
        let child = server.spawn().expect("postgres");
        let port_text = port.to_string();
        let client = ["psql", "-h", "127.0.0.1", "-p", &port_text, "-U", "postgres", "-q", "-c"];
        let client = client.map(str::to_owned).to_vec();
        Self { child, port, folder, client }.ready("SELECT 1")
    }

    pub fn mariadb() -> Self {
        let folder = Folder::new();
        let data = folder.path("data");
        fs::create_dir(&data).expect("a folder");
        let mut init = Command::new("mariadb-install-db");
        init.arg("--no-defaults").arg("--auth-root-authentication-method=normal");
        init.arg("--skip-test-db").arg(format!("--datadir={}", data.display()));
        as_user(&mut init, &folder);
        quiet(&mut init, &folder, "init.log");
        assert!(init.status().expect("mariadb-install-db").success());
        let port = free_port();
        let socket = folder.path("m.sock").display().to_string();
        let mut server = Command::new("mariadbd");
        server.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
        server.arg(format!("--port={port}")).arg(format!("--socket={socket}"));
        server.args(["--bind-address=127.0.0.1", "--skip-log-bin"]);
        server.arg(format!("--pid-file={}", folder.path("pid").display()));
        as_user(&mut server, &folder);
        quiet(&mut server, &folder, "server.log");
        let child = server.spawn().expect("mariadbd");
        let client = ["mariadb", "--no-defaults", "-u", "root", "-S", &socket, "-e"];
        let client = client.map(str::to_owned).to_vec();
        Self { child, port, folder, client }.ready("SELECT 1")
    }

    /// A pooler in front of PostgreSQL that gives each transaction whichever of two connections is
    /// free.
    pub fn pgbouncer(postgres: &Self) -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let words = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = \
             127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 2\nunix_socket_dir =\n",
            postgres.port
        );
        let file = folder.write("pgbouncer.ini", &words);
        let mut server = Command::new("/usr/sbin/pgbouncer");
        server.arg(file);
        as_user(&mut server, &folder);
        quiet(&mut server, &folder, "server.log");
        let child = server.spawn().expect("pgbouncer; see tests/tools.sh");
        let port_text = port.to_string();
        let client = ["psql", "-h", "127.0.0.1", "-p", &port_text, "-U", "postgres", "-q", "-c"];
        let client = client.map(str::to_owned).to_vec();
        Self { child, port, folder, client }.ready("SELECT 1")
    }

    pub fn redis() -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let mut server = Command::new("redis-server");
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        server.args(["--requirepass", "test-redis-password"]).arg("--dir").arg(folder.path(""));
        quiet(&mut server, &folder, "server.log");
        let child = server.spawn().expect("redis-server");
        let mut client = ["redis-cli", "-p", &port.to_string()].map(str::to_owned).to_vec();
        client.extend(["--no-auth-warning", "-a", "test-redis-password"].map(str::to_owned));
        Self { child, port, folder, client }.ready("PING")
    }

    fn ready(self, word: &str) -> Self {
        eventually("a server that answers", || self.try_run(&[word]).then_some(()));
        self
    }

    fn try_run(&self, words: &[&str]) -> bool {
        let (program, arguments) = self.client.split_first().expect("a client");
        let output = Command::new(program).args(arguments).args(words).output();
        let output = output.expect("its client");
        let wrong = String::from_utf8_lossy(&output.stdout).starts_with("NOAUTH");
        output.status.success() && !wrong
    }

    /// One statement, or the words of one command.
    pub fn run(&self, words: &[&str]) {
        let log = fs::read_to_string(self.folder.path("server.log")).unwrap_or_default();
        assert!(self.try_run(words), "{words:?}\n{log}");
    }

    pub fn stop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
