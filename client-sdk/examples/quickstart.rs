//! The first program, as the README has it: says hi to bob and prints what arrives.
//! `TOKEN=$(natter token alice) cargo run -p natter-client --example quickstart`
#![expect(clippy::print_stdout, reason = "it talks to a person")]
use natter_client::{Client, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let token = std::env::var("TOKEN")?;
    let client = Client::builder("mqtt://127.0.0.1:1883").user("alice").token(token).connect().await?;
    client.chat("bob").send_text("hi").await?.sent().await?; // one tick: on the server's disk
    let mut events = client.events();
    while let Some(event) = events.next().await {
        let Event::Message(message) = event else { continue };
        println!("{}: {}", message.from, message.text().unwrap_or_default());
        message.mark_read().await?; // blue ticks
    }
    Ok(())
}
