//! `vestibule reload`: asks the running process over its admin listener.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::config::{self, Admin, AdminAddress};
use crate::service::Stop;

use super::say;

/// The process answers a reload within its own ten seconds.
const DEADLINE: Duration = Duration::from_secs(15);

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Prints the verdict; an error if nothing was installed.
pub fn run(file: &Path) -> Result<(), Stop> {
    // A broken file still says where the process listens, or the process would not run.
    let admin = config::admin_of(file)?;
    let Some(admin) = admin else {
        return Err(Stop::Reload("listen.admin is closed: send SIGHUP instead".to_owned()));
    };
    let answer = ask(&admin).map_err(|error| {
        Stop::Reload(format!("nobody answers at {}: {error}; does it run?", admin.address))
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let verdict: serde_json::Value = serde_json::from_str(body.trim()).unwrap_or_default();
    let notes = verdict.get("notes").and_then(serde_json::Value::as_array);
    let notes = notes.into_iter().flatten().filter_map(serde_json::Value::as_str);
    let notes = notes.collect::<Vec<_>>().join("\n");
    if head.starts_with("HTTP/1.1 200") {
        let generation = verdict.get("generation").and_then(serde_json::Value::as_u64);
        return say(&format!("installed as generation {}\n{notes}", generation.unwrap_or_default()));
    }
    let why = if notes.is_empty() { body.trim().to_owned() } else { notes };
    Err(Stop::Reload(format!("not reloaded, the running configuration stays\n{why}")))
}

fn ask(admin: &Admin) -> io::Result<String> {
    let mut stream: Box<dyn Stream> = match &admin.address {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, DEADLINE)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            Box::new(stream)
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            Box::new(stream)
        }
    };
    let token = match &admin.token {
        Some(token) => format!("authorization: Bearer {}\r\n", token.expose()),
        None => String::new(),
    };
    write!(
        stream,
        "POST /reload HTTP/1.1\r\nhost: vestibule\r\n{token}content-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
