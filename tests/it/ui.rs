//! The pages of the admin listener that change the configuration, over HTTP.

use std::fs;

use crate::api::{CONFIG, Tokens};
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::Gateway;

/// A visitor with a cookie.
pub struct Ui<'g> {
    gateway: &'g Gateway,
    cookie: String,
}

/// Names and texts of fields.
type Form<'f> = &'f [(&'f str, &'f str)];

fn encoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

impl<'g> Ui<'g> {
    fn new(gateway: &'g Gateway) -> Self {
        Ui { gateway, cookie: String::new() }
    }

    pub fn logged_in(gateway: &'g Gateway, token: &str) -> Self {
        let response = Ui::new(gateway).post("/ui/login", &[("token", token)], &[]);
        assert_eq!((response.status, response.header("Location")), (303, Some("/ui/")), "{}", response.text());
        let set = response.header("Set-Cookie").expect("a cookie");
        assert!(set.ends_with("; Path=/ui; HttpOnly; SameSite=Strict; Max-Age=3600"), "{set}");
        Ui { gateway, cookie: set.split(';').next().unwrap().to_owned() }
    }

    fn send(&self, method: &str, path: &str, body: &str, more: &[(&str, &str)]) -> Response {
        let mut fields = vec![("Host", "localhost"), ("Cookie", self.cookie.as_str())];
        if !body.is_empty() {
            fields.push(("Content-Type", "application/x-www-form-urlencoded"));
        }
        fields.extend(more);
        Connection::open(self.gateway.admin()).unwrap().request(method, path, &fields, body.as_bytes()).unwrap()
    }

    fn get(&self, path: &str) -> Response {
        self.send("GET", path, "", &[])
    }

    fn post(&self, path: &str, fields: &[(&str, &str)], more: &[(&str, &str)]) -> Response {
        self.send("POST", path, &encoded(fields), more)
    }

    /// The values of a form's hidden fields.
    fn hidden(&self, path: &str) -> (String, String) {
        let page = self.get(path).text().to_owned();
        let value = |name: &str| {
            let (_, rest) = page.rsplit_once(&format!("name=\"{name}\" value=\"")).unwrap_or(("", "\""));
            rest.split('"').next().unwrap().to_owned()
        };
        (value("csrf"), value("version"))
    }

    /// Sends a form with its hidden fields.
    pub fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let (csrf, version) = self.hidden(path);
        self.post(path, &[&[("csrf", csrf.as_str()), ("version", version.as_str())], fields].concat(), &[])
    }
}

fn start() -> (Gateway, Tokens) {
    let tokens = Tokens::new();
    (Gateway::start_with_files(CONFIG, &tokens.files()), tokens)
}

fn text(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.config_path()).unwrap()
}

#[test]
fn a_policy_is_previewed_and_saved() {
    let (gateway, tokens) = start();
    let ui = Ui::logged_in(&gateway, &tokens.write);
    let before = text(&gateway);
    let form = [("allow_origins", "*"), ("allow_methods", "GET"), ("max_age", "7200"), ("allow_credentials", "")];
    let tried = [("preview", "1"), ("try-origin", "https://b.example"), ("try-url", "http://any.test/orders/1")];
    let preview = ui.submit("/ui/cors_policies/public", &[&form[..], &tried].concat());
    assert_eq!(preview.status, 200);
    for part in ["nothing is saved yet", "60 s -&gt; 7200 s", "max_age: 7200", "Access-Control-Allow-Origin: *"] {
        assert!(preview.text().contains(part), "{part}: {}", preview.text());
    }
    assert_eq!(text(&gateway), before);
    let saved = ui.submit("/ui/cors_policies/public", &[&form[..], &[("save", "1")]].concat());
    assert_eq!(
        (saved.status, saved.header("Location")),
        (303, Some("/ui/cors_policies/public?saved=2")),
        "{}",
        saved.text()
    );
    assert_eq!(text(&gateway), before.replace("max_age: 60", "max_age: 7200"), "comments stay");
    assert!(ui.get("/ui/cors_policies/public?saved=2").text().contains("active since generation 2"));
    let preflight = [("Host", "x"), ("Origin", "https://b.example"), ("Access-Control-Request-Method", "GET")];
    let response = fetch(gateway.address(), "OPTIONS", "/orders/1", &preflight);
    assert_eq!(response.header("Access-Control-Max-Age"), Some("7200"));
    gateway.wait_for_log("api put \"cors_policies/public\" token=ci client=127.0.0.1 result=applied");
}

#[test]
fn each_kind_of_object_is_created_and_deleted() {
    let (gateway, tokens) = start();
    let ui = Ui::logged_in(&gateway, &tokens.write);
    let before = text(&gateway);
    #[rustfmt::skip]
    let rows: [(&str, &str, Form<'_>, &str); 5] = [
        ("/ui/new/origin_sets", "/ui/origin_sets/shops", &[("name", "shops"), ("", "https://a.example\r\nhttps://b.example")], "shops: [https://a.example, https://b.example]"),
        ("/ui/new/cors_policies", "/ui/cors_policies/apps", &[("name", "apps"), ("allow_origin_sets", "shops"), ("preflight.refused_status", "403")], "preflight: { refused_status: 403 }"),
        ("/ui/new/upstreams", "/ui/upstreams/two", &[("name", "two"), ("nodes", "- address: 127.0.0.1:9")], "two:"),
        ("/ui/new/services", "/ui/services/web", &[("name", "web"), ("hosts", "web.test"), ("upstream", "two"), ("cors", "named"), ("cors.name", "apps")], "name: web"),
        ("/ui/new/services/web/routes", "/ui/services/web/routes/old", &[("name", "old"), ("paths", "/old/*"), ("cors", "own"), ("cors.allow_origins", "https://c.example")], "allow_origins: [https://c.example]"),
    ];
    for (path, own, form, expected) in rows {
        let response = ui.submit(path, &[form, &[("save", "1")]].concat());
        assert_eq!(response.status, 303, "{path}: {}", response.text());
        assert!(
            response.header("Location").unwrap().starts_with(&format!("{own}?saved=")),
            "{:?}",
            response.header("Location")
        );
        assert!(text(&gateway).contains(expected), "{path}: {}", text(&gateway));
        assert_eq!(ui.get(own).status, 200);
        assert!(ui.get("/ui/").text().contains(&format!("href=\"{own}\"")), "{own}");
    }
    // A policy that a service uses stays.
    let used = ui.submit("/ui/cors_policies/apps", &[("delete", "1")]);
    assert!(used.status == 409 && used.text().contains("Nothing was changed"), "{}", used.text());
    for own in ["/ui/services/web", "/ui/cors_policies/apps", "/ui/upstreams/two", "/ui/origin_sets/shops"] {
        let asked = ui.submit(own, &[("delete", "1")]);
        assert!(asked.status == 200 && asked.text().contains("Delete it now"), "{}", asked.text());
        assert_eq!(ui.submit(own, &[("delete-now", "1")]).status, 303, "{own}");
    }
    assert_eq!(text(&gateway), before);
}

#[test]
fn a_mistake_is_shown_beside_its_field_and_changes_nothing() {
    let (gateway, tokens) = start();
    let ui = Ui::logged_in(&gateway, &tokens.write);
    let before = text(&gateway);
    let path = "/ui/cors_policies/public";
    #[rustfmt::skip]
    let rows: [(Form<'_>, u16, &str, &str); 7] = [
        (&[("allow_origins", "https://a.example/")], 422, "f-allow_origins", "write <code>https://a.example</code>"),
        (&[("allow_origins", "*"), ("allow_credentials", "true")], 422, "f-allow_origins", "credentials"),
        (&[("allow_origins", "*"), ("max_age", "an hour")], 422, "f-max_age", "an hour"),
        (&[("allow_origins", "*"), ("preflight.status", "201")], 422, "f-preflight.status", "201"),
        (&[("allow_origins", "*"), ("report_only", "a: [")], 422, "f-report_only", "Nothing was changed"),
        (&[("allow_origins", "*"), ("disallowed_origins", "\"><script>alert(1)</script>")], 422, "f-disallowed_origins", "&quot;&gt;&lt;script&gt;"),
        (&[("allow_origins", "*"), ("allow_origin_sets", "none")], 422, "f-allow_origin_sets", "none"),
    ];
    for (form, status, field, expected) in rows {
        for button in ["preview", "save"] {
            let response = ui.submit(path, &[form, &[(button, "1")]].concat());
            let page = response.text();
            assert_eq!(response.status, status, "{form:?}: {page}");
            assert!(page.contains(&format!("href=\"#{field}\"")), "{form:?}: {page}");
            assert!(page.contains(expected) && page.contains("class=\"error\""), "{form:?}: {page}");
            assert!(!page.contains("<script"), "{page}");
            assert!(
                page.contains(&format!("value=\"{}\"", form[0].1)) || page.contains(form[0].1),
                "the text stays: {page}"
            );
        }
    }
    assert_eq!(text(&gateway), before);
}

#[test]
fn only_a_login_that_may_write_changes_something() {
    let (gateway, tokens) = start();
    let before = text(&gateway);
    let path = "/ui/cors_policies/public";
    let form = [("allow_origins", "*"), ("save", "1")];
    let writer = Ui::logged_in(&gateway, &tokens.write);
    let (csrf, version) = writer.hidden(path);
    let with = |csrf: &str| encoded(&[("csrf", csrf), ("version", &version), form[0], form[1]]);
    // Without a login, the page can be read, and has no buttons.
    let reader = Ui::new(&gateway);
    let page = reader.get(path);
    assert!(
        page.status == 200 && page.text().contains("Log in") && !page.text().contains("name=\"save\""),
        "{}",
        page.text()
    );
    assert_eq!(reader.send("POST", path, &with(&csrf), &[]).status, 403);
    // With the role `read`.
    let read = Ui::logged_in(&gateway, tokens.read());
    let (own, _) = read.hidden("/ui/");
    let refused = read.send("POST", path, &with(&own), &[]);
    assert!(refused.status == 403 && refused.text().contains("may only read"), "{}", refused.text());
    // Another CSRF value, of another session, or none.
    let second = Ui::logged_in(&gateway, &tokens.write);
    for wrong in ["", "x", &second.hidden(path).0, &csrf[1..]] {
        assert_eq!(writer.send("POST", path, &with(wrong), &[]).status, 403, "{wrong}");
    }
    // Requests of pages of other sites are refused. Another port of the same machine is another site here.
    for foreign in [
        ("Origin", "https://evil.test"),
        ("Origin", "null"),
        ("Origin", "http://localhost:3000"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        assert_eq!(writer.send("POST", path, &with(&csrf), &[foreign]).status, 403, "{foreign:?}");
        let login = Ui::new(&gateway).post("/ui/login", &[("token", &tokens.write)], &[foreign]);
        assert!(login.status == 403 && login.header("Set-Cookie").is_none(), "{foreign:?}");
    }
    assert_eq!(text(&gateway), before);
    // A logout ends the session.
    let gone = second.post("/ui/logout", &[("csrf", &second.hidden("/ui/").0)], &[]);
    assert!(gone.status == 303 && gone.header("Set-Cookie").unwrap().contains("Max-Age=0"));
    assert!(second.get("/ui/").text().contains("Log in"));
    // Removing the token ends it too.
    fs::write(
        gateway.config_path().parent().unwrap().join("admin.tokens"),
        tokens.files()[0].1.lines().nth(1).unwrap(),
    )
    .unwrap();
    gateway.signal(crate::support::gateway::Signal::Hup);
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(writer.send("POST", path, &with(&csrf), &[]).status, 403);
    assert_eq!(text(&gateway), before);
}

#[test]
fn wrong_tokens_are_limited_and_logged() {
    let (gateway, tokens) = start();
    let ui = Ui::new(&gateway);
    for wrong in ["", "secret", "corsgate_0000000000000000000000000000000000000000000"] {
        let response = ui.post("/ui/login", &[("token", wrong)], &[]);
        assert!(response.status == 401 && response.header("Set-Cookie").is_none(), "{}", response.text());
    }
    let statuses: Vec<u16> = (0..10).map(|_| ui.post("/ui/login", &[("token", "x")], &[]).status).collect();
    assert!(statuses.ends_with(&[429, 429]), "{statuses:?}");
    // A valid token is always accepted.
    drop(Ui::logged_in(&gateway, &tokens.write));
    gateway.wait_for_log("result=refused code=unauthorized");
}

#[test]
fn of_two_people_nobody_loses_a_change() {
    let (gateway, tokens) = start();
    let (one, two) = (Ui::logged_in(&gateway, &tokens.write), Ui::logged_in(&gateway, &tokens.write));
    let path = "/ui/cors_policies/public";
    let (csrf, version) = one.hidden(path);
    assert_eq!(two.submit(path, &[("allow_origins", "*"), ("max_age", "1"), ("save", "1")]).status, 303);
    let form = [
        ("csrf", csrf.as_str()),
        ("version", version.as_str()),
        ("allow_origins", "*"),
        ("max_age", "2"),
        ("save", "1"),
    ];
    let conflict = one.post(path, &form, &[]);
    assert!(
        conflict.status == 412 && conflict.text().contains("Somebody else has changed or deleted it"),
        "{}",
        conflict.text()
    );
    assert!(conflict.text().contains("value=\"2\""), "the entered values stay");
    assert!(text(&gateway).contains("max_age: 1\n"), "{}", text(&gateway));
    // The object was deleted meanwhile. The next preview creates it again.
    two.submit("/ui/new/cors_policies", &[("name", "gone"), ("allow_origins", "*"), ("save", "1")]);
    let (csrf, version) = one.hidden("/ui/cors_policies/gone");
    assert_eq!(two.submit("/ui/cors_policies/gone", &[("delete-now", "1")]).status, 303);
    let send = |version: &str| {
        let form = [("csrf", csrf.as_str()), ("version", version), ("allow_origins", "*"), ("save", "1")];
        one.post("/ui/cors_policies/gone", &form, &[])
    };
    let deleted = send(&version);
    assert!(deleted.status == 412 && deleted.text().contains("name=\"version\" value=\"\""), "{}", deleted.text());
    assert_eq!(send("").status, 303);
}

#[test]
fn a_name_that_cannot_be_used_keeps_the_form() {
    let (gateway, tokens) = start();
    let ui = Ui::logged_in(&gateway, &tokens.write);
    let before = text(&gateway);
    for (name, expected) in [
        ("", "the object needs a name"),
        (" ", "the object needs a name"),
        (".", "cannot be names"),
        ("..", "cannot be names"),
        ("public", "there is already an object with this name"),
        ("a b", "href=\"#f-name\""),
        ("a/b", "href=\"#f-name\""),
    ] {
        for button in ["preview", "save"] {
            let form = [("name", name), ("allow_origins", "https://kept.example"), (button, "1")];
            let response = ui.submit("/ui/new/cors_policies", &form);
            let page = response.text();
            assert_eq!(response.status, 422, "{name:?}: {page}");
            assert!(page.contains(expected) && page.contains("id=\"f-name\""), "{name:?}: {page}");
            assert!(
                page.contains("action=\"/ui/new/cors_policies\"") && page.contains("https://kept.example"),
                "{name:?}: {page}"
            );
        }
    }
    // Fields of a policy that is not chosen.
    let own = [
        ("upstream", "api"),
        ("cors", "named"),
        ("cors.name", "public"),
        ("cors.allow_origins", "https://a.example"),
        ("save", "1"),
    ];
    let response = ui.submit("/ui/services/shop", &own);
    assert!(response.status == 422 && response.text().contains("href=\"#f-cors\""), "{}", response.text());
    assert_eq!(text(&gateway), before);
}

/// The listener of the start stays until a restart. So a reload that forbids remote writing ends it at once.
#[test]
fn a_login_does_not_outlive_the_permission_of_remote_writing() {
    let tokens = Tokens::new();
    let port = crate::support::gateway::free_port();
    let remote = CONFIG.replace(
        "address: \"{admin}\"",
        &format!("address: \"0.0.0.0:{port}\"\n  dangerously_allow_remote_write: true"),
    );
    let gateway = Gateway::start_with_files(&remote, &tokens.files());
    let send = |method: &str, path: &str, cookie: &str, fields: &[(&str, &str)]| {
        let head = [("Host", "localhost"), ("Cookie", cookie), ("Content-Type", "application/x-www-form-urlencoded")];
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        Connection::open(address).unwrap().request(method, path, &head, encoded(fields).as_bytes()).unwrap()
    };
    let login = send("POST", "/ui/login", "", &[("token", &tokens.write)]);
    let cookie = login.header("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
    let page = send("GET", "/ui/", &cookie, &[]).text().to_owned();
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    gateway.reload_with(&CONFIG.replace("{admin}", &format!("127.0.0.1:{port}")));
    gateway.wait_for_log("reloaded generation=2");
    let form = [("csrf", csrf.as_str()), ("name", "new"), ("allow_origins", "*"), ("save", "1")];
    assert_eq!(send("POST", "/ui/new/cors_policies", &cookie, &form).status, 403);
    assert!(!text(&gateway).contains("new:"), "{}", text(&gateway));
}

#[test]
fn requests_of_another_form_get_an_answer() {
    let (gateway, tokens) = start();
    let ui = Ui::logged_in(&gateway, &tokens.write);
    for (method, path, status) in [
        ("GET", "/ui", 200),
        ("HEAD", "/ui/", 200),
        ("GET", "/ui/login", 200),
        ("GET", "/ui/new/services", 200),
        ("GET", "/ui/services/none", 404),
        ("GET", "/ui/none", 404),
        ("GET", "/ui/services/%00", 404),
        ("PUT", "/ui/services/shop", 405),
        ("DELETE", "/ui/", 405),
        ("POST", "/ui/", 403),
        ("GET", "/uix", 404),
    ] {
        let response = ui.send(method, path, "", &[]);
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        if path.starts_with("/ui/") {
            let policy = response.header("Content-Security-Policy").unwrap();
            assert!(
                policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.contains("form-action 'self'"),
                "{policy}"
            );
            assert_eq!(response.header("Cache-Control"), Some("no-store"));
        }
    }
    let large = "a=".to_owned() + &"x".repeat(2 << 20);
    assert_eq!(ui.send("POST", "/ui/cors_policies/public", &large, &[]).status, 413);
    let hostile = ui.submit(
        "/ui/new/cors_policies",
        &[("name", "<script>alert(1)</script>"), ("allow_origins", "*"), ("save", "1")],
    );
    assert!(hostile.status == 422 && !hostile.text().contains("<script"), "{}", hostile.text());
}

#[test]
fn without_admin_write_the_pages_can_only_be_read() {
    let gateway = Gateway::start(&CONFIG.replace("  write: admin.tokens\n", ""));
    let ui = Ui::new(&gateway);
    let page = ui.get("/ui/cors_policies/public");
    assert!(
        page.status == 200 && page.text().contains("read-only") && !page.text().contains("<button"),
        "{}",
        page.text()
    );
    assert!(ui.get("/ui/login").text().contains("switches them on"));
    assert_eq!(ui.post("/ui/login", &[("token", "x")], &[]).status, 404);
}
