//! Headless Firefox, as a user's browser.
//!
//! `make test` installs it. Without it these tests fail; `cargo test -- --skip firefox` leaves them out.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::certificates::Authority;

/// The names of the program in the distributions.
const PROGRAMS: [&str; 2] = ["firefox-esr", "firefox"];

/// Preferences that disable all connections that do not belong to the page.
const PREFERENCES: [(&str, &str); 15] = [
    ("app.normandy.enabled", "false"),
    ("app.update.disabledForTesting", "true"),
    ("browser.aboutwelcome.enabled", "false"),
    ("browser.newtabpage.enabled", "false"),
    ("browser.safebrowsing.malware.enabled", "false"),
    ("browser.safebrowsing.phishing.enabled", "false"),
    ("browser.shell.checkDefaultBrowser", "false"),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("extensions.update.enabled", "false"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("network.proxy.type", "0"),
    // Otherwise a refused WebSocket delays the next ones.
    ("network.websocket.delay-failed-reconnects", "false"),
    ("services.settings.server", "\"http://127.0.0.1:1/\""),
    ("toolkit.telemetry.enabled", "false"),
];

/// A running browser with one open page, killed on drop.
pub struct Firefox {
    process: Child,
    profile: TempDir,
}

impl Firefox {
    /// Opens a page with a new profile, so all caches are empty. The browser trusts this certificate authority.
    ///
    /// # Panics
    ///
    /// If Firefox or certutil is not installed.
    pub fn open(url: &str, authority: &Authority) -> Self {
        let profile = TempDir::with_prefix("corsgate-firefox-").expect("make a directory");
        let preferences: String =
            PREFERENCES.iter().map(|(name, value)| format!("user_pref(\"{name}\", {value});\n")).collect();
        std::fs::write(profile.path().join("user.js"), preferences).expect("write a file");
        trust(profile.path(), authority);
        let spawn = |program: &&str| command(program, profile.path(), url).spawn().ok();
        let process = PROGRAMS.iter().find_map(spawn).expect("Firefox is missing; `make test-tools` installs it");
        Self { process, profile }
    }

    /// The log of the browser.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        // The children of the browser end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes the certificate database of a profile.
fn trust(profile: &Path, authority: &Authority) {
    std::fs::write(profile.join("authority.pem"), authority.pem()).expect("write a file");
    for arguments in ["-N --empty-password -d sql:.", "-A -n authority -t C,, -i authority.pem -d sql:."] {
        let result = Command::new("certutil").args(arguments.split(' ')).current_dir(profile).output();
        let output = result.expect("certutil is missing; `make test-tools` installs it");
        assert!(output.status.success(), "certutil {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn command(program: &str, profile: &Path, url: &str) -> Command {
    let log = File::create(profile.join("log")).expect("make a file");
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-remote", "--new-instance"])
        .arg("--profile")
        .arg(profile)
        // Firefox refuses to run as root with the home directory of another user.
        .env("HOME", profile)
        .env("TMPDIR", profile)
        .env("MOZ_CRASHREPORTER_DISABLE", "1")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}
