//! Sends a file and shows how far it is; the other side, if it is you, gets it into `received/`.
//!
//! ```sh
//! cargo run --release &
//! natter user add alice; natter user add bob
//! TOKEN=$(natter token alice) cargo run --example send_file -- alice bob photo.jpg
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example for a terminal")]

use natter_client::media::{MediaKind, safe_name};
use natter_client::{BoxError, Client, Event};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(user), Some(to), Some(path)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("expected three arguments: your name, the recipient's name, a path".into());
    };
    let url = std::env::var("NATTER_URL").unwrap_or("mqtt://127.0.0.1:1883".into());
    let mut builder = Client::builder(&url).user(&user).device("files").token(std::env::var("TOKEN")?);
    if let Ok(http) = std::env::var("NATTER_HTTP") {
        builder = builder.http(&http);
    }
    let client = builder.connect().await?;

    let upload = client.media().upload(&path).on_progress(|progress| {
        eprint!("\r{:>3} %", progress.percent().unwrap_or(0));
    });
    let file = upload.await?; // over broken connections; a file that is too large is refused before it is sent
    eprintln!("\r{} bytes are there", file.file_size.unwrap_or(0));

    let chat = client.chat(&to);
    let message = match file.kind {
        Some(MediaKind::Image) => chat.send_image(&file).await?,
        Some(MediaKind::Audio) => chat.send_audio(&file).await?,
        Some(MediaKind::Video) => chat.send_video(&file).await?,
        _ => chat.send_document(&file).await?,
    };
    println!("sent as number {}", message.sent().await?.n);
    if to != user {
        message.delivered().await?;
        println!("{to} has it");
        return Ok(());
    }

    let mut events = client.events();
    while let Some(event) = events.next().await {
        let Event::Message(received) = event else { continue };
        let Some(file) = received.media() else { continue };
        std::fs::create_dir_all("received")?;
        let name = safe_name(file.filename.as_deref().unwrap_or_default(), file.id.as_str());
        let saved = client.media().download(&file, format!("received/{name}")).await?;
        println!("{} bytes in {}", saved.file_size, saved.path.display());
        break;
    }
    Ok(())
}
