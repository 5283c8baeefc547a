//! Headless Chromium, as a user's browser.
//!
//! `make test` installs it. Without it these tests fail; `cargo test -- --skip chromium` leaves them out.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The names of the program in the distributions.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A running browser with one open page, killed on drop.
pub struct Chromium {
    process: Child,
    profile: TempDir,
}

impl Chromium {
    /// Opens a page with a new profile, so all caches are empty.
    ///
    /// # Panics
    ///
    /// If Chromium is not installed.
    pub fn open(url: &str) -> Self {
        let profile = TempDir::with_prefix("corsgate-chromium-").expect("make a directory");
        let spawn = |program: &&str| command(program, profile.path(), url).spawn().ok();
        let process = PROGRAMS.iter().find_map(spawn).expect("Chromium is missing; `make test-tools` installs it");
        Self { process, profile }
    }

    /// The log of the browser.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The children of the browser end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(program: &str, profile: &Path, url: &str) -> Command {
    let log = File::create(profile.join("log")).expect("make a file");
    let mut command = Command::new(program);
    command
        // As root, and in containers, Chromium's sandbox does not start.
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        // These options disable all connections that do not belong to the page.
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg("--proxy-server=direct://")
        // Chromium does not trust the certificate authority of the tests.
        .arg("--ignore-certificate-errors")
        .arg("--enable-logging=stderr")
        .arg(format!("--user-data-dir={}", profile.display()))
        // Chromium does not remove its temporary files when it is killed.
        .env("TMPDIR", profile)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}
