//! nginx, as a node of an upstream and as a gateway to compare with. `make test` installs it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::process::Process;

/// Starts nginx with one server, and waits until it accepts connections. `server` is the content of the `server` block,
/// which listens at `address`. There is a cache for `proxy_cache cache`. All files of nginx are in `folder`, and its
/// errors are in `nginx.log`.
///
/// # Panics
///
/// If nginx is missing or does not start.
#[track_caller]
pub fn start(folder: &Path, address: SocketAddr, server: &str) -> Process {
    let at = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {at}/{name};\n"))
        .concat();
    // nginx runs as one process, so killing it ends it completely.
    let config = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.log crit;
events {{ }}
http {{
  access_log off;
  proxy_cache_path {at}/cache keys_zone=cache:1m;
{paths}  server {{ {server} }}
}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).expect("write a file");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file).arg("-e").arg(folder.join("nginx.log"));
    Process::spawn_server(command.stdout(Stdio::null()).stderr(Stdio::null()), address)
}
