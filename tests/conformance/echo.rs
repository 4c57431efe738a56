//! The engine alone, answering `/engine.io/` on the address given; see README.md beside this file.

use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:3000".to_owned());
    vestibule::echo(TcpListener::bind(address)?)
}
