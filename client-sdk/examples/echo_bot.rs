//! Answers every text with the same text, exactly once each, whatever is killed meanwhile:
//! `cargo run -p natter-client --example echo_bot -- mqtt://127.0.0.1:1883 bot TOKEN bot.db`
use natter_client::{Client, Event};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, user, token, path] = arguments.as_slice() else {
        return Err("expected URL USER TOKEN STORE".into());
    };
    let client = Client::builder(url).user(user).device("bot").token(token).store(path).start().await?;
    let mut events = client.events();
    // An event is acknowledged when the next one is asked for: a bot that dies between two lines gets it again. The answer's id is made of
    // the question's, so that a second answer is the same message.
    while let Some(event) = events.next().await {
        if let Event::Message(message) = event
            && let Some(text) = message.text()
            && message.from != client.user().as_str()
        {
            let answer = json!({"type": "text", "text": {"body": text}, "id": format!("echo-{}", message.seq)});
            message.reply()?.send(answer).await?;
            message.mark_read().await?;
        }
    }
    Ok(())
}
