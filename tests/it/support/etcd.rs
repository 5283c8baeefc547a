//! A real etcd, on free ports and in a directory of its own, killed on drop.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::gateway::free_port;
use crate::support::process::{PROCESS_TIMEOUT, Process, poll};

/// A cluster of one or more members.
pub struct Etcd {
    members: Vec<Member>,
    dir: TempDir,
    /// Options of `etcdctl` for TLS and login.
    client_options: Vec<String>,
}

struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    /// None while it is down.
    process: Option<Process>,
}

/// Files for TLS with clients.
#[derive(Clone)]
pub struct EtcdTls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Etcd {
    /// Starts one member.
    pub fn start() -> Self {
        Self::cluster(1, None)
    }

    /// Starts one member that needs TLS and client certificates of this authority.
    pub fn start_with_tls(tls: &EtcdTls) -> Self {
        Self::cluster(1, Some(tls))
    }

    /// Starts `size` members, and waits until they have a leader.
    pub fn cluster(size: usize, tls: Option<&EtcdTls>) -> Self {
        let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let members: Vec<Member> = (0..size)
            .map(|i| Member { name: format!("m{i}"), client: address(), peer: address(), process: None })
            .collect();
        let mut client_options = Vec::new();
        if let Some(tls) = tls {
            client_options.extend([
                format!("--cacert={}", tls.ca.display()),
                format!("--cert={}", tls.certificate.display()),
                format!("--key={}", tls.key.display()),
            ]);
        }
        let dir = TempDir::with_prefix("etcd-").expect("make a directory");
        let mut etcd = Self { members, dir, client_options };
        for i in 0..size {
            etcd.spawn(i, tls);
        }
        etcd.wait_until_healthy();
        etcd
    }

    fn spawn(&mut self, i: usize, tls: Option<&EtcdTls>) {
        let cluster: Vec<String> =
            self.members.iter().map(|member| format!("{}=http://{}", member.name, member.peer)).collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let member = &self.members[i];
        let mut command = Command::new("etcd");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // The data of a test need not survive the machine.
            .args(["--unsafe-no-fsync", "--log-level=error", "--heartbeat-interval=50", "--election-timeout=500"])
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", self.dir.path().join(&member.name).display()))
            .arg(format!("--listen-client-urls={scheme}://{}", member.client))
            .arg(format!("--advertise-client-urls={scheme}://{}", member.client))
            .arg(format!("--listen-peer-urls=http://{}", member.peer))
            .arg(format!("--initial-advertise-peer-urls=http://{}", member.peer))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(tls) = tls {
            command
                .arg("--client-cert-auth")
                .arg(format!("--trusted-ca-file={}", tls.ca.display()))
                .arg(format!("--cert-file={}", tls.certificate.display()))
                .arg(format!("--key-file={}", tls.key.display()));
        }
        self.members[i].process = Some(Process::spawn(&mut command));
    }

    /// Waits until requests are answered, by a cluster with a leader.
    #[track_caller]
    pub fn wait_until_healthy(&self) {
        let healthy = || self.try_ctl(&["get", "no-such-key"], "").0.then_some(());
        assert!(poll(PROCESS_TIMEOUT, healthy).is_some(), "etcd does not start");
    }

    /// `HOST:PORT` of each member, separated by commas.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.client.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The URL of a prefix, for `--config`.
    pub fn url(&self, prefix: &str) -> String {
        format!("etcd://{}{prefix}", self.endpoints())
    }

    /// Options of `etcdctl` for a user.
    pub fn log_in(&mut self, user: &str, password: &str) {
        self.client_options.push(format!("--user={user}:{password}"));
    }

    /// Runs `etcdctl`, and returns its stdout.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> String {
        self.ctl_with_input(args, "")
    }

    #[track_caller]
    pub fn ctl_with_input(&self, args: &[&str], input: &str) -> String {
        let (ok, output) = self.try_ctl(args, input);
        assert!(ok, "etcdctl {args:?}: {output}");
        output
    }

    fn try_ctl(&self, args: &[&str], input: &str) -> (bool, String) {
        use std::io::Write;
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints()))
            .args(["--command-timeout=5s", "--dial-timeout=2s"])
            .args(&self.client_options)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl; `make test-tools` installs it");
        // It may end without reading.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the end of etcdctl");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => (true, text(&output.stdout)),
            false => (false, text(&output.stderr)),
        }
    }

    /// Writes a value.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        match value {
            "" => self.ctl(&["put", key, ""]),
            // From stdin, because a value can begin with a dash.
            _ => self.ctl_with_input(&["put", key], value),
        };
    }

    /// Deletes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.ctl(&["del", key]);
    }

    /// Writes many values in transactions of 100.
    #[track_caller]
    pub fn put_all(&self, values: &[(String, String)]) {
        for some in values.chunks(100) {
            let puts: Vec<String> = some.iter().map(|(key, value)| format!("put {key} {value:?}")).collect();
            self.ctl_with_input(&["txn"], &format!("\n{}\n\n\n", puts.join("\n")));
        }
    }

    /// The revision of the cluster. Records of instances count too.
    pub fn revision(&self) -> i64 {
        self.number(&["get", "no-such-key", "--write-out=json"], "\"revision\":")
    }

    /// The revision of the last change of a key.
    pub fn revision_of(&self, key: &str) -> i64 {
        self.number(&["get", key, "--write-out=json"], "\"mod_revision\":")
    }

    fn number(&self, args: &[&str], field: &str) -> i64 {
        let output = self.ctl(args);
        let rest = output.split(field).nth(1).expect("the field");
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Kills all members.
    pub fn kill(&mut self) {
        self.members.iter_mut().for_each(|member| member.process = None);
    }

    /// Starts all members that are down again, with their data.
    pub fn restart(&mut self) {
        for i in 0..self.members.len() {
            if self.members[i].process.is_none() {
                self.spawn(i, None);
            }
        }
        self.wait_until_healthy();
    }

    /// Kills the leader, and waits for a new one.
    pub fn kill_leader(&mut self) {
        let status = self.ctl(&["endpoint", "status", "--write-out=fields"]);
        let field = |block: &str, name: &str| {
            let line = block.lines().find(|line| line.starts_with(&format!("\"{name}\"")))?;
            Some(line.split(" : ").nth(1)?.trim_matches('"').to_owned())
        };
        let leader = status.split("\n\n").find_map(|block| {
            (field(block, "MemberID")? == field(block, "Leader")?).then(|| field(block, "Endpoint"))?
        });
        let leader = leader.unwrap_or_else(|| panic!("no leader in {status}"));
        let member = self.members.iter_mut().find(|member| member.client.to_string() == leader);
        member.expect("the leader is a member").process = None;
        self.wait_until_healthy();
    }

    /// Stops all members (SIGSTOP), so that connections stay open and nobody answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets stopped members run again.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        for process in self.members.iter().filter_map(|member| member.process.as_ref()) {
            let status = Command::new("sh").arg("-c").arg(format!("kill -s {name} {}", process.id())).status();
            assert!(status.is_ok_and(|status| status.success()));
        }
    }
}

/// How long a test waits for a change to arrive.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
