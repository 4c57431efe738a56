//! The chat that every server of the benchmark offers, with socketioxide as it comes.
//!
//! Prints its address when it listens. One thread, as the others have.

use std::env;
use std::error::Error;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use serde_json::json;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use tokio::net::TcpListener;

#[derive(Serialize, Deserialize)]
struct Message {
    room: String,
    t: u64,
    b: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let interval = env::var("PING_INTERVAL_MS")?.parse()?;
    let (service, io) =
        SocketIo::builder().ping_interval(Duration::from_millis(interval)).build_svc();
    io.ns("/chat", chat);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ended = connection.with_upgrades().await;
        });
    }
}

async fn chat(socket: SocketRef) {
    socket.on("join", async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
        socket.join(format!("room:{room}"));
        let _sent = ack.send(&json!({ "ok": true }));
    });
    socket.on("leave", async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
        socket.leave(format!("room:{room}"));
        let _sent = ack.send(&json!({ "ok": true }));
    });
    socket.on("message", async |socket: SocketRef, Data(message): Data<Message>| {
        let room = format!("room:{}", message.room);
        let _sent = socket.to(room).emit("message", &message).await;
    });
    socket.on("echo", async |Data(_message): Data<Message>, ack: AckSender| {
        let _sent = ack.send(&json!({ "ok": true }));
    });
}
