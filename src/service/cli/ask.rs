//! Asks the running process over its admin listener.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::config::{self, Admin, AdminAddress};
use crate::service::Stop;

/// The process answers within its own ten seconds.
const DEADLINE: Duration = Duration::from_secs(15);

/// Status and body of an answer.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Sends one request to where `file` says the process listens.
///
/// What else is wrong with the file does not matter here: the process may run an older one.
pub fn ask(file: &Path, method: &str, path: &str) -> Result<Answer, Stop> {
    ask_within(DEADLINE, file, method, path)
}

/// The same for what may take longer.
pub fn ask_within(
    deadline: Duration,
    file: &Path,
    method: &str,
    path: &str,
) -> Result<Answer, Stop> {
    let admin = config::admin_of(file)?;
    let Some(admin) = admin else {
        return Err(Stop::Asked(
            "listen.admin is closed, so the process cannot be asked".to_owned(),
        ));
    };
    let answer = exchange(&admin, deadline, method, path).map_err(|error| {
        Stop::Asked(format!("nobody answers at {}: {error}; does it run?", admin.address))
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.unwrap_or_default(), body: body.trim().to_owned() })
}

fn exchange(admin: &Admin, deadline: Duration, method: &str, path: &str) -> io::Result<String> {
    let token = match &admin.token {
        Some(token) => format!("authorization: Bearer {}\r\n", token.expose()),
        None => String::new(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: vestibule\r\n{token}content-length: 0\r\nconnection: close\r\n\r\n"
    );
    match &admin.address {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, deadline)?;
            stream.set_read_timeout(Some(deadline))?;
            converse(stream, &request)
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(deadline))?;
            converse(stream, &request)
        }
    }
}

fn converse(mut stream: impl Read + Write, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
