//! One connection to one server of Redis: opened and logged in within a deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Protocol, Redis};

use super::resp::{Decoder, Value, command};
use super::tls::Trust;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// Why a connection could not be, or is no more.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("closed by the server")]
    Closed,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("says {0:?}")]
    Refused(String),
    #[error("speaks no RESP")]
    Malformed,
    #[error("what was sent did not come back over a subscribed channel within {0:?}")]
    Deaf(Duration),
    #[error("no Sentinel knows a master called {0:?}")]
    NoMaster(String),
    #[error("the cluster has no server for some of its slots")]
    NoSlots,
    #[error("{0} is no master")]
    NotMaster(String),
}

/// Who we are there.
#[derive(Debug, Clone, Default)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<crate::config::Secret>,
    pub database: u32,
}

/// How connections are made.
pub struct Dialer {
    pub timeout: Duration,
    protocol: Protocol,
    trust: Option<Arc<Trust>>,
}

pub struct Line {
    pub reader: Reader,
    pub writer: Writer,
}

/// Reads have no deadline of their own: whoever waits for an answer knows how long.
pub struct Reader {
    half: Box<dyn AsyncRead + Unpin>,
    buffer: BytesMut,
    decoder: Decoder,
}

pub struct Writer(Box<dyn AsyncWrite + Unpin>);

impl Dialer {
    pub fn new(words: &Redis, trust: Option<Arc<Trust>>) -> Self {
        Self { timeout: words.timeout, protocol: words.protocol, trust }
    }

    /// A connection that has been let in.
    pub async fn dial(&self, address: &Address, login: &Login) -> Result<Line, LineError> {
        let dialing = async {
            let mut line = self.connect(address).await?;
            self.enter(&mut line, login).await?;
            Ok(line)
        };
        timeout(self.timeout, dialing).await.unwrap_or(Err(LineError::Late(self.timeout)))
    }

    async fn connect(&self, address: &Address) -> Result<Line, LineError> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.trust {
            None => Line::new(stream),
            Some(trust) => Line::new(trust.greet(&address.host, stream).await?),
        })
    }

    async fn enter(&self, line: &mut Line, login: &Login) -> Result<(), LineError> {
        let user = login.username.as_deref();
        let password = login.password.as_ref().map(|password| password.expose().as_bytes());
        let speaks_3 = self.protocol != Protocol::Resp2 && {
            let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
            if let Some(password) = password {
                hello.extend([b"AUTH", user.unwrap_or("default").as_bytes(), password]);
            }
            match line.ask(&hello).await {
                Ok(_) => true,
                // An older server does not know the word, or not the number.
                Err(LineError::Refused(words))
                    if self.protocol == Protocol::Auto && is_older(&words) =>
                {
                    false
                }
                Err(error) => return Err(error),
            }
        };
        if let (false, Some(password)) = (speaks_3, password) {
            let mut auth: Vec<&[u8]> = vec![b"AUTH"];
            auth.extend(user.map(str::as_bytes));
            auth.push(password);
            line.ask(&auth).await?;
        }
        if login.database != 0 {
            line.ask(&[b"SELECT", login.database.to_string().as_bytes()]).await?;
        }
        // A user may have no right to be called anything.
        match line.ask(&[b"CLIENT", b"SETNAME", b"vestibule"]).await {
            Ok(_) | Err(LineError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_older(words: &str) -> bool {
    words.starts_with("ERR unknown command") || words.starts_with("NOPROTO")
}

impl Line {
    fn new(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Self {
        let (reader, writer) = split(stream);
        let reader =
            Reader { half: Box::new(reader), buffer: BytesMut::new(), decoder: Decoder::default() };
        Self { reader, writer: Writer(Box::new(writer)) }
    }

    /// One command and its answer; only while nobody else speaks on this line, and within a
    /// deadline of the caller's.
    pub async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, LineError> {
        self.writer.send(&command(words)).await?;
        loop {
            match self.reader.next().await? {
                Value::Push(_) => {}
                answer => return answer.right().map_err(LineError::Refused),
            }
        }
    }
}

impl Reader {
    pub async fn next(&mut self) -> Result<Value, LineError> {
        loop {
            let next = self.decoder.next(&mut self.buffer);
            if let Some(value) = next.map_err(|_malformed| LineError::Malformed)? {
                return Ok(value);
            }
            self.buffer.reserve(16 << 10);
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(LineError::Closed);
            }
        }
    }
}

impl Writer {
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        self.0.write_all(bytes).await?;
        self.0.flush().await?;
        Ok(())
    }
}
