//! Sends one line and prints what arrives:
//! `cargo run -p natter-client --example quickstart -- alice TOKEN bob "hi"`
#![expect(clippy::print_stdout, reason = "it talks to a person")]
use natter_client::{Client, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [user, token, to, text] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "USER TOKEN TO TEXT")?;
    let client = Client::builder("mqtt://127.0.0.1:1883").user(&user).token(token).connect().await?;
    println!("one tick: {:?}", client.chat(&to).send_text(text).await?.sent().await?);
    let mut events = client.events();
    while let Some(event) = events.next().await {
        if let Event::Message(message) = event {
            println!("{}: {}", message.from, message.text().unwrap_or(&message.kind));
            message.mark_read().await?;
        }
    }
    Ok(())
}
