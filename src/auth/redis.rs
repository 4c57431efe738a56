//! Values of Redis by their keys: the one command that sessions need, read only.

use std::cell::RefCell;
use std::io;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{RedisAddress, RedisPlace};

/// One server, and connections to it that nobody uses now.
pub struct Redis {
    place: RedisPlace,
    idle: RefCell<Vec<Line>>,
}

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its own words; the first is the kind.
    #[error("it says {0}")]
    Said(String),
    #[error("it answered what is no answer")]
    Malformed,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

type Line = BufReader<Box<dyn Stream>>;

/// Connections that are kept.
const IDLE: usize = 4;
/// Bytes of one value.
const VALUE_MAX: usize = 1 << 20;

impl Redis {
    pub fn new(place: &RedisPlace) -> Self {
        Self { place: place.clone(), idle: RefCell::default() }
    }

    /// The values of these keys, in their order, by one command.
    pub async fn get(&self, keys: &[String]) -> Result<Vec<Option<String>>, RedisError> {
        let kept = self.idle.borrow_mut().pop();
        if let Some(mut line) = kept
            && let Ok(values) = Self::ask(&mut line, keys).await
        {
            self.keep(line);
            return Ok(values);
        }
        // None was kept, or it had been closed meanwhile.
        let mut line = self.connect().await?;
        let values = Self::ask(&mut line, keys).await?;
        self.keep(line);
        Ok(values)
    }

    fn keep(&self, line: Line) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE {
            idle.push(line);
        }
    }

    async fn connect(&self) -> Result<Line, RedisError> {
        let stream: Box<dyn Stream> = match &self.place.address {
            RedisAddress::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            RedisAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let mut line = BufReader::new(stream);
        if let Some(password) = &self.place.password {
            let mut words = vec!["AUTH"];
            words.extend(self.place.user.as_deref());
            words.push(password.expose());
            send(&mut line, &words).await?;
            read(&mut line).await?;
        }
        if self.place.database != 0 {
            send(&mut line, &["SELECT", &self.place.database.to_string()]).await?;
            read(&mut line).await?;
        }
        Ok(line)
    }

    async fn ask(line: &mut Line, keys: &[String]) -> Result<Vec<Option<String>>, RedisError> {
        let words: Vec<&str> =
            std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        send(line, &words).await?;
        let head = head(line).await?;
        match head.split_at_checked(1) {
            Some(("*", count)) if count.parse() == Ok(keys.len()) => (),
            Some(("-", text)) => return Err(RedisError::Said(text.to_owned())),
            _ => return Err(RedisError::Malformed),
        }
        let mut values = Vec::with_capacity(keys.len());
        for _ in keys {
            values.push(read(line).await?);
        }
        Ok(values)
    }
}

async fn send(line: &mut Line, words: &[&str]) -> io::Result<()> {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    line.write_all(bytes.as_bytes()).await?;
    line.flush().await
}

/// The first line of an answer.
async fn head(line: &mut Line) -> Result<String, RedisError> {
    const HEAD_MAX: u64 = 1024;
    let mut head = String::new();
    (&mut *line).take(HEAD_MAX).read_line(&mut head).await?;
    head.strip_suffix("\r\n").map(str::to_owned).ok_or(RedisError::Malformed)
}

/// A simple or a bulk string (RESP2).
async fn read(line: &mut Line) -> Result<Option<String>, RedisError> {
    let head = head(line).await?;
    match head.split_at_checked(1) {
        Some(("+", text)) => Ok(Some(text.to_owned())),
        Some(("-", text)) => Err(RedisError::Said(text.to_owned())),
        Some(("$", "-1")) => Ok(None),
        Some(("$", length)) => {
            let length: usize = length.parse().map_err(|_error| RedisError::Malformed)?;
            if length > VALUE_MAX {
                return Err(RedisError::Malformed);
            }
            let mut value = vec![0; length + 2];
            line.read_exact(&mut value).await?;
            value.truncate(length);
            String::from_utf8(value).map(Some).map_err(|_error| RedisError::Malformed)
        }
        _ => Err(RedisError::Malformed),
    }
}
