//! Makes a group, asks it something, and prints what its members do:
//! `cargo run -p natter-client --example group -- mqtt://127.0.0.1:1883 alice TOKEN Trip bob carol`
#![expect(clippy::print_stdout, reason = "an example for a terminal")]

use natter_client::groups::Change;
use natter_client::{Client, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, user, token, subject, members @ ..] = arguments.as_slice() else {
        return Err("expected URL USER TOKEN SUBJECT MEMBER..".into());
    };
    let client = Client::builder(url).user(user).device("group").token(token).connect().await?;
    let group = client.create_group(subject, members).await?;
    let question = group.chat().send_text("who comes?").await?; // goes behind the creation
    if let Some(creation) = group.creation() {
        creation.sent().await?; // or why not, as a member that nobody knows
    }
    println!("{subject} is {}, the question its number {}", group.name(), question.sent().await?.n);

    let mut events = client.events();
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) if message.chat == group.name() => {
                println!("{}: {}", message.from, message.text().unwrap_or("(no text)"));
                message.mark_read().await?;
            }
            Event::Receipt(receipt) if receipt.chat == group.name() => {
                if let Some(counts) = receipt.counts {
                    println!("{} of {} have it, {} have read it", counts.delivered_to, counts.of, counts.read_by);
                }
            }
            Event::Group(change) if change.chat == group.name() => match &change.what {
                Change::Created { .. } => println!("{} made the group", change.by),
                Change::Removed { users } => println!("{} removed {}", change.by, users.join(", ")),
                other => println!("{}: {other:?}", change.by),
            },
            _ => {}
        }
    }
    Ok(())
}
