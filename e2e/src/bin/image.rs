//! Packs a built program as a container image: what `cargo xtask images` runs.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use todo_e2e::image::Image;

/// Pack a statically linked program as a container image
#[derive(Parser)]
struct Args {
    /// The program; it runs by its file's name
    program: PathBuf,
    /// The image's whole name
    #[arg(long)]
    name: String,
    /// The version, for the labels
    #[arg(long)]
    version: String,
    /// The archive to write
    #[arg(long)]
    output: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut image = Image::of(&args.name, &args.program)?;
    image.add_authorities()?;
    image.labels = [
        ("title", "Todo Platform"),
        ("version", &args.version),
        ("licenses", "Apache-2.0"),
    ]
    .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
    .into();
    let written = image.write(&args.output)?;
    println!(
        "{}: {} ({:.1} MB unpacked, {:.1} MB as {})",
        args.name,
        written.id,
        megabytes(written.unpacked),
        megabytes(fs::metadata(&args.output)?.len()),
        args.output.display()
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
