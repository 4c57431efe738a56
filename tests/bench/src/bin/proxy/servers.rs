//! The proxies: written their configurations, started on their core, ended by their process ids.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

const START: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
    /// HAProxy that passes bytes on and reads none of them: what the system calls alone cost.
    Relay,
    Vestibule,
    /// Another build of it, for one who changes it.
    Before,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Relay, Self::Vestibule];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Relay => "relay",
            Self::Vestibule => "vestibule",
            Self::Before => "before",
        }
    }
}

/// What all proxies are told to do alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub log: bool,
    pub gzip: bool,
    pub workers: u8,
}

pub struct Place<'a> {
    pub folder: &'a Path,
    pub vestibule: &'a Path,
    pub before: Option<&'a Path>,
    pub upstream: SocketAddr,
}

pub struct Server {
    pub kind: Kind,
    pub plain: SocketAddr,
    pub secure: SocketAddr,
    child: Child,
}

impl Server {
    pub fn start(kind: Kind, mode: Mode, place: &Place<'_>) -> Outcome<Self> {
        let (plain, secure) = (free()?, free()?);
        let Mode { log, gzip, workers } = mode;
        let name = format!("{}-{}{}{workers}", kind.name(), u8::from(log), u8::from(gzip));
        let folder = place.folder.join(name);
        fs::create_dir_all(&folder)?;
        let words = Words { plain, secure, mode, folder: folder.clone(), place };
        let mut command = Command::new("taskset");
        // As many cores as workers, from the first on.
        command
            .args(["-c", &format!("0-{}", workers - 1)])
            .current_dir(&folder)
            .stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(folder.join("errors"))?);
        match kind {
            Kind::Nginx => {
                let file = words.write("nginx.conf", &words.nginx())?;
                command.args(["nginx", "-e", "errors", "-p"]).arg(&folder).arg("-c").arg(file);
            }
            Kind::Haproxy | Kind::Relay => {
                let text = if kind == Kind::Relay { words.relay() } else { words.haproxy() };
                let file = words.write("haproxy.cfg", &text)?;
                command.args(["haproxy", "-db", "-f"]).arg(file);
            }
            Kind::Vestibule | Kind::Before => {
                let file = words.write("proxy.yaml", &words.vestibule())?;
                let before = place.before.filter(|_| kind == Kind::Before);
                command.arg(before.unwrap_or(place.vestibule)).args(["run", "-c"]).arg(file);
            }
        }
        let mut server = Self { kind, plain, secure, child: command.spawn()? };
        let begun = Instant::now();
        while TcpStream::connect(plain).and_then(|_| TcpStream::connect(secure)).is_err() {
            if begun.elapsed() > START || server.child.try_wait()?.is_some() {
                let why = fs::read_to_string(folder.join("errors")).unwrap_or_default();
                return Err(format!("{} did not start: {why}", kind.name()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Processor time of all its threads, in the kernel's own nanoseconds.
    pub fn cpu(&self) -> Outcome<Duration> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let times = fs::read_to_string(thread?.path().join("schedstat"))?;
            total += times.split(' ').next().ok_or("an empty schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Kilobytes it has resident.
    pub fn resident(&self) -> Outcome<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn free() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A certificate that all of them show.
pub fn write_certificate(folder: &Path) -> Outcome<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::create_dir_all(folder.join("certs"))?;
    fs::write(folder.join("certs/localhost.pem"), &pem)?;
    fs::write(folder.join("certs/localhost.key"), &key)?;
    fs::write(folder.join("both.pem"), format!("{pem}{key}"))?;
    Ok(())
}

struct Words<'a> {
    plain: SocketAddr,
    secure: SocketAddr,
    mode: Mode,
    folder: PathBuf,
    place: &'a Place<'a>,
}

impl Words<'_> {
    fn write(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn nginx(&self) -> String {
        let certs = self.place.folder.join("certs");
        let (plain, secure, upstream) = (self.plain, self.secure, self.place.upstream);
        let log = if self.mode.log { "access.log" } else { "off" };
        let gzip = match self.mode.gzip {
            true => "gzip on; gzip_comp_level 5; gzip_proxied any; gzip_types text/html;",
            false => "gzip off;",
        };
        format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid;\n\
             worker_rlimit_nofile 20000;\n\
             events {{ worker_connections 19000; }}\n\
             http {{\n\
               access_log {log}; {gzip}\n\
               keepalive_requests 1000000000; keepalive_timeout 75s; large_client_header_buffers 4 64k;\n\
               ssl_certificate {certs}/localhost.pem; ssl_certificate_key {certs}/localhost.key;\n\
               ssl_protocols TLSv1.3; ssl_session_cache off;\n\
               upstream app {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
               server {{\n\
                 listen {plain} backlog=4096; listen {secure} ssl http2 backlog=4096;\n\
                 server_name localhost;\n\
                 location / {{\n\
                   proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                   proxy_set_header Host $host:$server_port; proxy_set_header X-Forwarded-For $remote_addr;\n\
                   proxy_set_header X-Forwarded-Host $host:$server_port;\n\
                   proxy_set_header X-Forwarded-Port $server_port;\n\
                   proxy_set_header X-Forwarded-Proto $scheme; proxy_max_temp_file_size 0;\n\
                 }}\n\
               }}\n\
             }}\n",
            certs = certs.display()
        )
    }

    fn haproxy(&self) -> String {
        let (plain, secure, upstream) = (self.plain, self.secure, self.place.upstream);
        let both = self.place.folder.join("both.pem");
        let gzip = if self.mode.gzip {
            "compression algo gzip\n compression type text/html\n"
        } else {
            ""
        };
        // It writes lines to a socket of syslog only, so nobody's file is compared with it.
        format!(
            "global\n nbthread 1\n maxconn 19000\n no strict-limits\n tune.comp.maxlevel 5\n tune.ssl.cachesize 0\n ssl-default-bind-options ssl-min-ver TLSv1.3\n\
             defaults\n mode http\n timeout client 75s\n timeout server 75s\n timeout connect 5s\n timeout http-keep-alive 75s\n http-reuse always\n option http-keep-alive\n\
             frontend front\n bind {plain} backlog 4096\n bind {secure} ssl crt {both} alpn h2,http/1.1 backlog 4096\n\
             option forwardfor\n http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}\n\
             http-request set-header X-Forwarded-Host %[req.hdr(host)]\n http-request set-header X-Forwarded-Port %[dst_port]\n {gzip} default_backend app\n\
             backend app\n server app {upstream} pool-max-conn 256\n",
            both = both.display()
        )
    }

    fn relay(&self) -> String {
        let (plain, secure, upstream) = (self.plain, self.secure, self.place.upstream);
        format!(
            "global\n nbthread 1\n maxconn 19000\n no strict-limits\n\
             defaults\n mode tcp\n timeout client 75s\n timeout server 75s\n timeout connect 5s\n\
             frontend front\n bind {plain} backlog 4096\n bind {secure} backlog 4096\n default_backend app\n\
             backend app\n server app {upstream}\n"
        )
    }

    fn vestibule(&self) -> String {
        let (plain, secure, upstream) = (self.plain, self.secure, self.place.upstream);
        let log = if self.mode.log { "access.log" } else { "none" };
        let compress = if self.mode.gzip { "[gzip]" } else { "[]" };
        let workers = self.mode.workers;
        // Plain HTTP would be redirected where the site has a certificate.
        format!(
            "listen: {{ http: ['{plain}'], https: ['{secure}'], admin: none }}\n\
             workers: {workers}\n\
             tls: {{ certs: '{certs}', min: '1.3' }}\n\
             log: {{ access: {log}, level: warn }}\n\
             sites:\n  localhost: {{ next: 'http://{upstream}', compress: {compress} }}\n  \
               127.0.0.1: {{ next: 'http://{upstream}', compress: {compress} }}\n",
            certs = self.place.folder.join("certs").display()
        )
    }
}
