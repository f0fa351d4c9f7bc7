//! A configuration as text: what `bowline config show` prints, and what `check` reads back as the same.

use std::fmt::{Display, Write};

use super::settings::Settings;
use crate::model::{Model, Pool, Vip};

/// The running configuration as a file.
pub fn render(settings: &Settings, model: &Model) -> String {
    let mut text = String::new();
    lb(&mut text, settings);
    for one in model.pools().values() {
        pool(&mut text, one);
    }
    for one in model.vips().values() {
        vip(&mut text, one);
    }
    text
}

fn lb(text: &mut String, settings: &Settings) {
    line(text, format_args!("[lb]"));
    line(text, format_args!("interfaces = {}", list(&settings.interfaces)));
    line(text, format_args!("xdp_mode = {}", quoted(settings.xdp_mode)));
    line(text, format_args!("tunnel_sources = {}", list(&settings.tunnel_sources)));
    line(text, format_args!("source = {}", list(&settings.source)));
    line(text, format_args!("socket = {}", quoted(settings.socket.display())));
    line(text, format_args!("state_dir = {}", quoted(settings.state_dir.display())));
    let commit_delay = humantime::format_duration(settings.commit_delay);
    line(text, format_args!("commit_delay = {}", quoted(commit_delay)));
    line(text, format_args!("log_drops = {}", settings.log_drops));
}

fn pool(text: &mut String, pool: &Pool) {
    line(text, format_args!("\n[[pool]]"));
    line(text, format_args!("name = {}", quoted(&pool.name)));
    line(text, format_args!("seed = \"{:016x}\"", pool.seed));
    line(text, format_args!("rows = {}", pool.rows()));
    line(text, format_args!("slack = {}", f64::from(pool.slack_permille) / 1000.0));
    line(text, format_args!("encapsulation = {}", quoted(pool.encapsulation)));
    line(text, format_args!("gue_port = {}", pool.gue_port));
    line(text, format_args!("agent = {}", pool.agent));
    for backend in pool.backends.values() {
        line(text, format_args!("\n[[pool.backend]]"));
        line(text, format_args!("address = {}", quoted(backend.address)));
        line(text, format_args!("weight = {}", backend.weight));
        line(text, format_args!("state = {}", quoted(backend.admin)));
    }
}

fn vip(text: &mut String, vip: &Vip) {
    line(text, format_args!("\n[[vip]]"));
    line(text, format_args!("name = {}", quoted(&vip.name)));
    line(text, format_args!("address = {}", quoted(vip.address)));
    line(text, format_args!("protocol = {}", quoted(vip.protocol)));
    line(text, format_args!("port = {}", vip.port));
    line(text, format_args!("pool = {}", quoted(&vip.pool)));
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    #[expect(clippy::unwrap_used, reason = "writing to a String cannot fail")]
    writeln!(text, "{content}").unwrap();
}

fn list<T: Display>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", values.join(", "))
}

/// A TOML basic string.
fn quoted(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}
