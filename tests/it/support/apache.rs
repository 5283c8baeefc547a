//! Apache httpd as an authentication service: mod_auth_form signs users in with a form, and keeps the session in a
//! cookie (mod_session_cookie). `make test` installs it.
//!
//! - `GET /` is a page that signs alice in, like a filled-in form.
//! - `POST /login` sets the cookie, and redirects to the page of the test.
//! - `GET /verify` answers 200 with `X-User` for a session, 401 without one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::process::Process;

/// `htpasswd -s`: the SHA-1 of `wonderland`.
const USERS: &str = "alice:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ=\n";
const FORM: &str = "<!doctype html>
<form method=post action=/login>
<input name=httpd_username value=alice><input name=httpd_password type=password value=wonderland>
</form>
<script>document.forms[0].submit()</script>
";
/// Where Debian and Fedora install the modules.
const MODULE_FOLDERS: [&str; 2] = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules"];
const MODULES: [&str; 13] = [
    "mpm_event",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_form",
    "request",
    "session",
    "session_cookie",
    "session_crypto",
    "headers",
    "mime",
    "dir",
];

/// A running Apache, killed on drop.
pub struct Apache {
    _process: Process,
    log: PathBuf,
}

impl Apache {
    /// Starts Apache, and waits until it accepts connections. All its files are in `folder`. The cookie is for all hosts
    /// of `domain`; after the login it redirects to `page`.
    ///
    /// # Panics
    ///
    /// If Apache is missing or does not start.
    #[track_caller]
    pub fn start(folder: &Path, address: SocketAddr, domain: &str, page: &str) -> Self {
        let modules = MODULE_FOLDERS.into_iter().find(|folder| Path::new(folder).is_dir()).unwrap_or(MODULE_FOLDERS[0]);
        let modules: String =
            MODULES.map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n")).concat();
        let (at, log) = (folder.display(), folder.join("access.log"));
        let form_login = format!("AuthType form\n  AuthName test\n  AuthFormProvider file\n  AuthUserFile {at}/users");
        let config = format!(
            "ServerRoot {at}
ServerName auth.test
Listen {address}
PidFile {at}/apache.pid
ErrorLog {at}/apache.log
{modules}
TypesConfig /dev/null
AddType text/html .html
DirectoryIndex index.html
DocumentRoot {at}/pages
LogFormat \"%m %U %{{X-Forwarded-Method}}i %{{X-Forwarded-Host}}i %{{X-Forwarded-Uri}}i %>s %u\" auth
CustomLog {log} auth
Session On
SessionCookieName session path=/;domain={domain};HttpOnly
SessionCryptoPassphrase secret
<Location /verify>
  {form_login}
  Require valid-user
  Header set X-User expr=%{{REMOTE_USER}}
</Location>
<Location /login>
  {form_login}
  Require all granted
  SetHandler form-login-handler
  AuthFormLoginSuccessLocation {page}
</Location>
",
            log = log.display()
        );
        fs::create_dir(folder.join("pages")).expect("make a folder");
        for (name, text) in
            [("apache.conf", &*config), ("users", USERS), ("pages/index.html", FORM), ("pages/verify", "")]
        {
            fs::write(folder.join(name), text).expect("write a file");
        }
        let program = if Path::new("/usr/sbin/httpd").exists() { "/usr/sbin/httpd" } else { "/usr/sbin/apache2" };
        let mut command = Command::new(program);
        // Apache runs as one process, so killing it ends it completely.
        command.arg("-X").arg("-f").arg(folder.join("apache.conf"));
        let process = Process::spawn_server(command.stdout(Stdio::null()).stderr(Stdio::null()), address);
        Self { _process: process, log }
    }

    /// Returns a line for each request: method and path; method, host and target of the client's request; the answer;
    /// and the user. Missing values are `-`.
    pub fn requests(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}
