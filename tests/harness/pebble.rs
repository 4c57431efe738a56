//! A real ACME server, Pebble, for which every name is this machine.

use std::process::{Child, Command, Stdio};

use super::node::free_port;
use super::{Authority, Edge, Folder, eventually, show_end};

/// Pebble and the name server that it asks. Both end when dropped.
pub struct Pebble {
    pub folder: Folder,
    port: u16,
    management: u16,
    words: String,
    names: Child,
    server: Child,
}

impl Pebble {
    /// Looks for proofs at these ports, and gives certificates that last so many seconds.
    pub fn start((http, https): (u16, u16), lasts: u32) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        authority.issue(&folder, "pebble", &["localhost"]);
        folder.write("ca.pem", &authority.pem);
        let (port, management, dns) = (free_port(), free_port(), free_port());
        let words = format!(
            r#"{{ "pebble": {{
                "listenAddress": "127.0.0.1:{port}",
                "managementListenAddress": "127.0.0.1:{management}",
                "certificate": "certs/pebble.pem", "privateKey": "certs/pebble.key",
                "httpPort": {http}, "tlsPort": {https}, "certificateValidityPeriod": {lasts}
            }} }}"#
        );
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-dns01", &format!("127.0.0.1:{dns}"), "-http01", "", "-https01", ""])
            .args(["-tlsalpn01", "", "-management", &format!("127.0.0.1:{}", free_port())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv: tests/tools.sh installs it");
        let words = format!("{words}\n{dns}");
        let server = serve(&folder, &words);
        let pebble = Self { folder, port, management, words, names, server };
        pebble.wait();
        pebble
    }

    /// The name server is asked over UDP, but listens to both.
    fn wait(&self) {
        let (_, dns) = self.words.rsplit_once('\n').expect("two parts");
        for port in [self.port, self.management, dns.parse().expect("a port")] {
            eventually("Pebble", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        }
    }

    /// Begins anew: accounts and orders are forgotten, and certificates come from another root.
    pub fn restart(&mut self) {
        end(&mut self.server);
        self.server = serve(&self.folder, &self.words);
        self.wait();
    }

    pub fn stop(&mut self) {
        end(&mut self.server);
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// What its own certificate comes from.
    pub fn ca(&self) -> String {
        self.folder.path("ca.pem").display().to_string()
    }

    /// A document of its own, or of its management.
    pub fn get(&self, url: &str) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--cacert", &self.ca(), url])
            .output()
            .expect("curl");
        assert!(output.status.success(), "{url}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A client that trusts what it gives.
    pub fn client(&self) -> rustls::ClientConfig {
        let root = self.get(&format!("https://localhost:{}/roots/0", self.management));
        Authority::trusting(&root)
    }
}

/// `words` are the configuration, and the name server's port on its last line.
fn serve(folder: &Folder, words: &str) -> Child {
    let (words, dns) = words.rsplit_once('\n').expect("two parts");
    let file = folder.write("pebble.json", words);
    let log = std::fs::File::create(folder.path("pebble.log")).expect("a log");
    Command::new("pebble")
        .arg("-config")
        .arg(file)
        .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
        .current_dir(folder.path(""))
        .env("PEBBLE_VA_NOSLEEP", "1")
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("pebble: tests/tools.sh installs it")
}

fn end(child: &mut Child) {
    let _killed = child.kill();
    let _ended = child.wait();
}

impl Drop for Pebble {
    fn drop(&mut self) {
        end(&mut self.names);
        end(&mut self.server);
        if std::thread::panicking() {
            show_end(&self.folder.path("pebble.log"), 20);
        }
    }
}

/// A handshake with whatever certificate there is.
pub fn certificate(edge: &Edge, name: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &edge.https().to_string(), "-servername", name])
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
