//! Sends one line and prints what arrives:
//! `cargo run -p natter-client --example quickstart -- mqtt://127.0.0.1:1883 alice TOKEN bob "hi"`
#![expect(clippy::print_stdout, reason = "it talks to a person")]

use natter_client::{Client, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, user, token, to, text] = arguments.as_slice() else {
        return Err("expected URL USER TOKEN TO TEXT".into());
    };
    let client = Client::builder(url).user(user).device("quickstart").token(token).connect().await?;
    let sent = client.chat(to).send_text(text).await?;
    println!("one tick: {} is number {} of the chat with {to}", sent.id, sent.n);

    let mut events = client.events();
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) => {
                println!("{}: {}", message.from, message.text().unwrap_or(&message.kind));
                client.mark_read(&message.chat, message.n).await?;
            }
            Event::Receipt(receipt) => println!("{} has {:?} up to {}", receipt.recipient, receipt.kind, receipt.n),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
