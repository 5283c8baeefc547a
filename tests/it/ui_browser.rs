//! The pages of the admin listener in Chromium: accessibility at two widths in light and dark, a policy set by hand, no
//! scripts, and a page of an attacker. `tests/it/ui.mjs` has the steps. The screenshots are in `target/ui`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::api::{CONFIG, Tokens};
use crate::support::client::fetch;
use crate::support::gateway::Gateway;
use crate::support::upstream::{Reply, Upstream};

/// Sends what a page can send without a preflight, and what needs one.
const ATTACK: &str = "<!doctype html><body><iframe name=f></iframe>
<form id=a target=f method=post action='ADMIN/ui/cors_policies/public'><input name=allow_origins value='*'><input name=max_age value=66><input name=save value=1></form>
<form id=b target=f method=post enctype='text/plain' action='ADMIN/api/v1/cors_policies/public'><input name='{\"max_age\":66,\"a\":\"' value='\"}'></form>
<script>
  const all = async () => {
    document.getElementById('a').submit();
    await new Promise(done => setTimeout(done, 300));
    document.getElementById('b').submit();
    const tries = [
      ['ADMIN/ui/cors_policies/public', { method: 'POST', body: new URLSearchParams({ allow_origins: '*', max_age: '66', save: '1' }) }],
      ['ADMIN/ui/cors_policies/public', { method: 'POST', mode: 'no-cors', body: new URLSearchParams({ allow_origins: '*', max_age: '66', save: '1' }) }],
      ['ADMIN/ui/logout', { method: 'POST', mode: 'no-cors' }],
      ['ADMIN/api/v1/cors_policies/public', { method: 'PATCH', headers: { 'Content-Type': 'application/json' }, body: '{\"max_age\":66}' }],
      ['ADMIN/ui/cors_policies/public', {}],
    ];
    let read = '';
    for (const [url, init] of tries) {
      try {
        const response = await fetch(url, { credentials: 'include', ...init });
        if (response.type != 'opaque') read += await response.text();
      } catch {}
    }
    document.body.append(read.includes('csrf') ? 'stolen' : 'attacked');
  };
  all();
</script>";

#[test]
fn chromium_people_can_use_the_pages_and_attackers_cannot() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tokens = Tokens::new();
    let gateway = Gateway::start_with_files(CONFIG, &tokens.files());
    let admin = format!("http://localhost:{}", gateway.admin().port());
    let attack = ATTACK.replace("ADMIN", &admin);
    let attacker = Upstream::start(move |_| Reply::new(200).header("Content-Type", "text/html").body(attack.as_str()));
    let shots = root.join("target/ui");
    fs::create_dir_all(&shots).unwrap();
    let program = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| {
            let path = std::env::var("PATH").unwrap_or_default();
            path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.exists())
        })
        .expect("Chromium is missing; `make test-tools` installs it");
    let output = Command::new("timeout")
        .args(["240", "node"])
        .arg(root.join("tests/it/ui.mjs"))
        .env("TOOLS", root.join("target/tools"))
        .env("CHROMIUM", program)
        .env("ADMIN", &admin)
        .env("TOKEN", &tokens.write)
        // Of the same site as the admin listener, so that cookies could go along.
        .env("ATTACKER", format!("http://localhost:{}/", attacker.address().port()))
        .env("SHOTS", &shots)
        .output()
        .expect("run node");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let violations: Vec<String> = serde_json::from_str(stdout.trim().lines().last().unwrap_or_default()).unwrap();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    // The curl of the walkthrough, and all that it prints.
    let walkthrough = [("Host", "cloud.httpbin.org"), ("Origin", "http://127.0.0.1:9080")];
    let answer = fetch(gateway.address(), "OPTIONS", "/v1/json", &walkthrough);
    let mut found: Vec<(String, &str)> = (answer.headers.iter())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "connection"))
        .collect();
    found.sort();
    let expected = [
        ("access-control-allow-headers", "*"),
        ("access-control-allow-methods", "GET"),
        ("access-control-allow-origin", "http://127.0.0.1:9080"),
        ("access-control-expose-headers", "*"),
        ("access-control-max-age", "5"),
        ("content-length", "0"),
        ("vary", "Origin"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!((answer.status, &*found), (200, &expected[..]));
    // A policy with several entries.
    let preflight =
        [("Host", "any.test"), ("Origin", "http://a.example.com:9080"), ("Access-Control-Request-Method", "PUT")];
    let answer = fetch(gateway.address(), "OPTIONS", "/orders/1", &preflight);
    for (name, value) in [
        ("Access-Control-Allow-Origin", "http://a.example.com:9080"),
        ("Access-Control-Allow-Methods", "GET, PUT"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Max-Age", "601"),
        ("Vary", "Origin"),
    ] {
        let found = answer.header(name).map(|found| found.replace(',', ", ").replace("  ", " "));
        assert!(found.as_deref().is_some_and(|found| found.contains(value)), "{name}: {found:?}");
    }
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    assert!(text.contains("max_age: 60\n") && !text.contains("66"), "the attacker has changed something:\n{text}");
}
