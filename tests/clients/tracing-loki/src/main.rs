//! Sends events through tracing-loki as its documentation shows, and ends when all are delivered.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = tracing_loki::url::Url::parse(&arguments.next().ok_or("an address is missing")?)?;
    let count: usize = arguments.next().ok_or("a count is missing")?.parse()?;
    let (layer, controller, task) =
        tracing_loki::builder().label("service_name", "rust-client")?.build_controller_url(url)?;
    tracing_subscriber::registry().with(layer).init();
    let task = tokio::spawn(task);
    for number in 0..count {
        tracing::info!(number, "rust record {number}");
        // The layer drops events when its channel of 512 is full.
        if number % 100 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    controller.shutdown().await;
    task.await?;
    Ok(())
}
