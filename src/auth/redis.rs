//! Values of Redis by their keys: the one command that sessions need, read only.

use std::cell::RefCell;
use std::io;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    copy, sink,
};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{RedisAddress, RedisPlace};

use super::identity::Denial;

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

/// What a key has, if anything. What is wrong with one is nothing to the others.
pub type Value = Result<Option<String>, Denial>;

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

type Line = BufReader<Box<dyn Stream>>;

/// Connections that are kept.
const IDLE: usize = 4;
/// Bytes of one value that is read.
const VALUE_MAX: u64 = 1 << 20;
/// Bytes of one value in Redis.
const LENGTH_MAX: u64 = 512 << 20;
/// A value that is longer, or no text.
const UNREADABLE: Denial = Denial::Refused("malformed_store_value");

impl Redis {
    pub fn new(place: &RedisPlace) -> Self {
        Self { place: place.clone(), idle: RefCell::default() }
    }

    /// The values of these keys, in their order, by one command.
    pub async fn get(&self, keys: &[String]) -> Result<Vec<Value>, RedisError> {
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
            let _done = read(&mut line).await?;
        }
        if self.place.database != 0 {
            send(&mut line, &["SELECT", &self.place.database.to_string()]).await?;
            let _done = read(&mut line).await?;
        }
        Ok(line)
    }

    async fn ask(line: &mut Line, keys: &[String]) -> Result<Vec<Value>, RedisError> {
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
async fn read(line: &mut Line) -> Result<Value, RedisError> {
    let head = head(line).await?;
    match head.split_at_checked(1) {
        Some(("+", text)) => Ok(Ok(Some(text.to_owned()))),
        Some(("-", text)) => Err(RedisError::Said(text.to_owned())),
        Some(("$", "-1")) => Ok(Ok(None)),
        Some(("$", length)) => {
            let length: u64 = length.parse().map_err(|_error| RedisError::Malformed)?;
            if length > LENGTH_MAX {
                return Err(RedisError::Malformed);
            }
            let mut value = Vec::new();
            (&mut *line).take(length.min(VALUE_MAX)).read_to_end(&mut value).await?;
            // The rest of it and the end of its line, or the next would begin within it.
            let rest = length - value.len() as u64 + 2;
            if copy(&mut (&mut *line).take(rest), &mut sink()).await? < rest {
                return Err(RedisError::Malformed);
            }
            let is_whole = length <= VALUE_MAX;
            let text = String::from_utf8(value).ok().filter(|_| is_whole);
            Ok(text.map(Some).ok_or(UNREADABLE))
        }
        _ => Err(RedisError::Malformed),
    }
}
