//! The files of `conf/systemd` and `conf/kubernetes` work without changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_yaml::Value;

use crate::corpus;
use crate::support::certificates::Authority;
use crate::support::client::fetch;
use crate::support::gateway::{free_port, run_in};
use crate::support::upstream::{Reply, Upstream};
use corsgate::snapshot::{Address, Loaded};

fn conf(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(path)
}

fn manifest(name: &str) -> Value {
    let path = conf("kubernetes").join(format!("{name}.yaml"));
    serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

// --- The build

#[test]
fn the_package_and_the_image_contain_the_profile_guided_build() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (makefile, dockerfile) = (read("Makefile"), read("Dockerfile"));
    let target = |name: &str| {
        let (_, target) = makefile.split_once(&format!("\n{name}:")).unwrap();
        target.split("\n\n").next().unwrap().to_owned()
    };
    let script = "sh tools/release-pgo.sh\n";
    assert!(target("release").contains(script), "{}", target("release"));
    assert!(target("release").ends_with(" target/pgo/corsgate target/release/corsgate"), "{}", target("release"));
    let deb = target("deb");
    assert!(deb.starts_with(" release ") && deb.ends_with("--no-build"), "{deb}");
    assert!(dockerfile.contains(&format!("\nRUN {script}")), "{dockerfile}");
    assert!(dockerfile.contains("\nCOPY --from=build /build/target/pgo/corsgate "), "{dockerfile}");
    assert!(read(".dockerignore").contains("\n!tools\n"), "the build has the script");
}

// --- The image

#[test]
fn the_image_has_root_certificates() {
    let dockerfile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).unwrap();
    let (_, image) = dockerfile.rsplit_once("\nFROM ").unwrap();
    assert!(image.contains("apt-get install -y --no-install-recommends ca-certificates"), "{image}");
}

// --- Kubernetes

#[test]
fn the_imported_configuration_of_the_pipeline_is_current() {
    let folder = tempfile::tempdir().unwrap();
    let source = conf("kubernetes-import");
    let read = |name: &str| fs::read_to_string(source.join(name)).unwrap();
    fs::write(folder.path().join("httproute.yaml"), read("httproute.yaml")).unwrap();
    let output = run_in(folder.path(), &["import", "httproute.yaml", "--output", "corsgate.yaml"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let made = folder.path().join("corsgate.yaml");
    let text = fs::read_to_string(&made).unwrap() + &read("settings.yaml");
    assert_eq!(text, read("corsgate.yaml"), "import httproute.yaml again");
    fs::write(&made, text).unwrap();
    assert_eq!(run_in(folder.path(), &["check", "--config", "corsgate.yaml"]).code, 0);
    let kustomization: Value = serde_yaml::from_str(&read("kustomization.yaml")).unwrap();
    let generator = &kustomization["configMapGenerator"][0];
    assert_eq!((&generator["name"], &generator["files"][0]), (&"corsgate".into(), &"corsgate.yaml".into()));
}

#[test]
fn the_manifests_are_complete_and_agree_with_each_other() {
    let kustomization = manifest("kustomization");
    let listed: Vec<&str> =
        kustomization["resources"].as_sequence().unwrap().iter().filter_map(Value::as_str).collect();
    let mut kinds = Vec::new();
    for file in listed.iter().filter(|file| **file != "api-service.yaml") {
        let manifest = manifest(file.strip_suffix(".yaml").unwrap());
        assert_eq!(manifest["metadata"]["name"], "corsgate", "{file}");
        assert_eq!(manifest["metadata"]["labels"]["app.kubernetes.io/name"], "corsgate", "{file}");
        kinds.push(manifest["kind"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["ConfigMap", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service"]);
    let files = fs::read_dir(conf("kubernetes")).unwrap().count();
    assert_eq!(files, listed.len() + 1, "a manifest that nobody lists");
    // kubectl may not be installed.
    let built = Command::new("kubectl").arg("kustomize").arg(conf("kubernetes")).stdin(Stdio::null()).output();
    if let Ok(built) = built {
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }

    let deployment = manifest("deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&manifest("service")["spec"]["selector"], labels);
    assert_eq!(&manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(manifest("horizontalpodautoscaler")["spec"]["scaleTargetRef"]["name"], "corsgate");
}

#[test]
fn make_image_builds_the_image_that_the_deployment_names() {
    let mut make = Command::new("make");
    // If `make test` runs this test, it would pass on its own flags.
    make.args(["--no-print-directory", "--dry-run", "image"]).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let output = make.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    let image = format!("corsgate:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(output, format!("docker build --tag {image} --tag corsgate:latest .\n"));
    assert_eq!(manifest("deployment")["spec"]["template"]["spec"]["containers"][0]["image"], *image);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deployment.md")).unwrap();
    let tags = page.split("corsgate:").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let named: Vec<&str> = tags.filter_map(|rest| rest.split('`').next()).collect();
    assert!(named.len() >= 3 && named.iter().all(|tag| *tag == env!("CARGO_PKG_VERSION")), "{named:?}");
}

/// With `externalTrafficPolicy: Local`, the peer of a connection is a client or a pod of the cluster.
#[test]
fn the_manifests_trust_no_proxy_and_bring_the_service_of_the_nodes() {
    let text = manifest("configmap")["data"]["corsgate.yaml"].as_str().unwrap().to_owned();
    let config: Value = serde_yaml::from_str(&text).unwrap();
    assert!(config.get("trusted_proxies").is_none());
    assert_eq!(manifest("service")["spec"]["externalTrafficPolicy"], "Local");
    let service = manifest("api-service");
    let (name, port) = (service["metadata"]["name"].as_str().unwrap(), &service["spec"]["ports"][0]["port"]);
    let node = format!("{name}.default.svc.cluster.local:{}", port.as_u64().unwrap());
    assert_eq!(config["upstreams"]["api"]["nodes"][0]["address"], *node);
    assert_eq!(service["spec"]["clusterIP"], "None");
}

#[test]
fn the_config_map_holds_a_configuration_that_fits_the_deployment() {
    let text = manifest("configmap")["data"]["corsgate.yaml"].as_str().unwrap().to_owned();
    let Loaded { snapshot, problems } = corpus::read(&text);
    let snapshot = snapshot.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(problems.count(corsgate::problem::Severity::Warning), 0, "{problems}");

    let deployment = manifest("deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let port = |name: &str| {
        let ports = container["ports"].as_sequence().unwrap().iter();
        ports.filter(|port| port["name"] == name).find_map(|port| port["containerPort"].as_u64()).unwrap()
    };
    let fixed = snapshot.startup();
    let Address::Ip(listen) = fixed.listeners[0].address else { panic!("a listener without a port") };
    assert_eq!(port("http"), u64::from(listen.port()));
    assert_eq!(port("admin"), u64::from(fixed.admin.unwrap().port()));
    assert!(!fixed.admin.unwrap().ip().is_loopback(), "the kubelet asks from outside of the pod");
    assert_eq!(manifest("service")["spec"]["ports"][0]["targetPort"], "http");
    // If a pod is killed before the end of the drain, requests are lost.
    let needed = fixed.drain_delay + fixed.grace_period;
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > needed.as_secs());
    for (probe, path) in [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], "admin");
    }
    // The user of the image, and the place of its configuration.
    let dockerfile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).unwrap();
    let user = pod["securityContext"]["runAsUser"].as_u64().unwrap();
    assert!(dockerfile.contains(&format!("\nUSER {user}\n")));
    let arguments: Vec<&str> = container["args"].as_sequence().unwrap().iter().filter_map(Value::as_str).collect();
    let (watch, of_image) = arguments.split_last().unwrap();
    assert_eq!(*watch, "--watch", "nobody sends signals there");
    let of_image: Vec<String> = of_image.iter().map(|argument| format!("{argument:?}")).collect();
    assert!(dockerfile.contains(&format!("CMD [{}]", of_image.join(", "))));
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/corsgate");
}

// --- systemd

/// The unit with the binary under test in place of the installed one.
fn unit() -> String {
    let unit = fs::read_to_string(conf("systemd/corsgate@.service")).unwrap();
    unit.replace("=corsgate ", concat!("=", env!("CARGO_BIN_EXE_corsgate"), " "))
}

#[test]
fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corsgate@blue.service");
    fs::write(&path, unit()).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).stdin(Stdio::null()).output();
    // systemd may not be installed.
    if let Ok(verified) = verified {
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // A missing program is not an error of the unit.
        let of_unit = |line: &&str| line.contains("corsgate@") && !line.contains("is not executable");
        let ours: Vec<&str> = said.lines().filter(of_unit).collect();
        assert!(ours.is_empty(), "{said}");
    }
    let unit = unit();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap_or_default();
    assert_eq!(value("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert_eq!(value("Restart"), "on-failure", "a process that has handed over must stay ended");
    assert_eq!(value("RuntimeDirectoryMode"), "0700", "whoever waits at the socket gets the listeners");
    assert_eq!(value("LogsDirectory"), "corsgate", "the rest of the file system is closed to it");
    for hardening in ["NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"] {
        assert!(unit.contains(&format!("\n{hardening}\n")), "{hardening}");
    }
}

#[test]
fn logrotate_and_the_unit_name_the_same_access_log() {
    let rotation = fs::read_to_string(conf("logrotate/corsgate")).unwrap();
    assert!(rotation.contains("\n/var/log/corsgate/*.log {\n"), "{rotation}");
    assert!(unit().contains("\nLogsDirectory=corsgate\n"));
    assert!(
        rotation.contains("systemctl reload 'corsgate@*'") && unit().contains("\nExecReload=/bin/kill -HUP $MAINPID\n")
    );
    let said = Command::new("logrotate").arg("--debug").arg(conf("logrotate/corsgate")).stdin(Stdio::null()).output();
    // logrotate may not be installed.
    if let Ok(said) = said {
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.contains("error:"), "{said}");
    }
}

/// The shell block of the page that contains this line.
fn steps(line: &str) -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deployment.md")).unwrap();
    let mut blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(line)).unwrap_or_else(|| panic!("no step {line}")).to_owned()
}

/// Runs a command below this root instead of `/`, with this binary and with a `systemctl` that does nothing.
fn run_below(root: &Path, script: &str) {
    let systemctl = root.join("systemctl");
    fs::write(&systemctl, "#!/bin/sh\necho \"$@\" >>\"$(dirname \"$0\")/systemctl.log\"\n").unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let below = |folder: &str| format!(" {}{folder}", root.display());
    let script = script.replace("target/release/corsgate", env!("CARGO_BIN_EXE_corsgate"));
    let script = script.replace(" /etc/", &below("/etc/")).replace(" /usr/local/", &below("/usr/local/"));
    let mut command = Command::new("sh");
    command.args(["-euc", &script]).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command.env("PATH", format!("{}:{}", root.display(), std::env::var("PATH").unwrap_or_default()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_steps_of_the_page_install_a_configuration_that_the_unit_accepts() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["etc/systemd/system", "usr/local/bin", "usr/local/sbin"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let steps = steps("target/release/corsgate");
    let steps: Vec<&str> =
        steps.lines().filter(|line| !line.starts_with("make") && !line.starts_with("useradd")).collect();
    run_below(root.path(), &steps.join("\n"));
    let unit = fs::read_to_string(root.path().join("etc/systemd/system/corsgate@.service")).unwrap();
    let check = unit.lines().find_map(|line| line.strip_prefix("ExecStartPre=")).unwrap();
    run_below(root.path(), &format!("{}/usr/local/bin/{check}", root.path().display()));
    let log = fs::read_to_string(root.path().join("systemctl.log")).unwrap();
    assert_eq!(log, "daemon-reload\nenable --now corsgate@blue\n");
}

/// certbot keeps keys in folders of root. The hook copies them, and `check` accepts the copies.
#[test]
fn the_certbot_hook_installs_certificates_and_reloads() {
    let root = tempfile::tempdir().unwrap();
    let (live, tls) = (root.path().join("live/api"), root.path().join("tls"));
    fs::create_dir_all(&live).unwrap();
    let authority = Authority::new("authority");
    for _renewal in 0..2 {
        let certificate = authority.issue(&["api.example"]);
        for ((_, contents), name) in certificate.files("api").iter().zip(["fullchain.pem", "privkey.pem"]) {
            fs::write(live.join(name), contents).unwrap();
        }
        let (live, tls) = (live.display(), tls.display());
        run_below(
            root.path(),
            &format!("export RENEWED_LINEAGE={live} TLS={tls} GROUP=$(id -gn)\nconf/certbot/corsgate-certbot"),
        );
    }
    let mode = |name: &str| fs::metadata(tls.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("api.key"), mode("api.crt")), (0o750, 0o640, 0o640));
    let config = "listeners: [{ address: 127.0.0.1:443, tls: { certificates: [{ cert: tls/api.crt, key: tls/api.key }] } }]\n\
                  services: [{ name: api, upstream: { nodes: [{ address: 127.0.0.1:8000 }] } }]\n";
    fs::write(root.path().join("corsgate.yaml"), config).unwrap();
    let output = run_in(root.path(), &["check", "--config", "corsgate.yaml"]);
    assert_eq!(output.code, 0, "{}", output.stdout);
    let log = fs::read_to_string(root.path().join("systemctl.log")).unwrap();
    assert_eq!(log, "try-reload-or-restart corsgate@*\n".repeat(2));
    // The page says that certbot runs scripts in this place.
    fs::create_dir_all(root.path().join("usr/local/sbin")).unwrap();
    let steps = steps("certbot certonly");
    run_below(root.path(), steps.lines().next().unwrap());
    let hook = steps.split("--deploy-hook ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let installed = root.path().join("usr/local/sbin").join(hook);
    assert_eq!(fs::metadata(installed).unwrap().permissions().mode() & 0o777, 0o755);
}

// --- The Debian package

#[test]
fn every_file_of_the_debian_package_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let section = manifest.split("[package.metadata.deb]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let assets = section.split("assets = [").nth(1).unwrap();
    // Source, target and mode.
    let assets: Vec<Vec<&str>> = assets
        .lines()
        .map(|line| line.split('"').skip(1).step_by(2).collect())
        .filter(|a: &Vec<_>| a.len() == 3)
        .collect();
    assert!(assets.len() >= 8, "{assets:?}");
    let installed = |target: &str, source: &str| match target.ends_with('/') {
        true => format!("/{target}{}", source.rsplit('/').next().unwrap()),
        false => format!("/{target}"),
    };
    let paths: Vec<String> = assets.iter().map(|asset| installed(asset[1], asset[0])).collect();
    for asset in &assets {
        match asset[0] {
            "target/release/corsgate" | "docs/*.md" => {}
            source => {
                let mode = fs::metadata(root.join(source)).unwrap_or_else(|error| panic!("{source}: {error}"));
                let executable = mode.permissions().mode() & 0o111 != 0;
                assert_eq!(executable, asset[2] == "755", "{source}");
            }
        }
    }
    for needed in ["/usr/bin/corsgate", "/usr/sbin/corsgate-upgrade", "/usr/lib/systemd/system/corsgate@.service"] {
        assert!(paths.iter().any(|path| path == needed), "{needed}: {paths:?}");
    }
    // An upgrade of the package keeps the changes of the operator.
    let conffiles: Vec<&str> = section
        .split("conf-files = [")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    let below_etc: Vec<&str> = paths.iter().map(String::as_str).filter(|path| path.starts_with("/etc/")).collect();
    assert_eq!(conffiles, below_etc);
    assert!(
        unit().contains(" check --config /etc/corsgate/corsgate.yaml\n")
            && conffiles.contains(&"/etc/corsgate/corsgate.yaml")
    );
    for script in ["postinst", "prerm", "postrm"] {
        let checked = Command::new("sh").arg("-n").arg(conf("debian").join(script)).status().unwrap();
        assert!(checked.success(), "{script}");
    }
}

/// A script that replaces `systemctl`. It has the subcommands of the upgrade script, and runs the commands of the unit.
const SYSTEMCTL: &str = r#"#!/bin/sh
set -eu
for last; do :; done
instance=${last#corsgate@}
pid=$RUNTIME/$instance.pid
alive() { [ -f "$pid" ] && kill -0 "$(cat "$pid")" 2>/dev/null && [ ! -f "$RUNTIME/$instance.ended" ]; }
case "$*" in
*is-active*) alive ;;
start*)
    CORSGATE_ARGS=
    [ -f "$RUNTIME/$instance.env" ] && . "$RUNTIME/$instance.env"
    RUNTIME_DIRECTORY=$RUNTIME "$CORSGATE" run --config "$CONFIG" $CORSGATE_ARGS >"$RUNTIME/$instance.log" 2>&1 &
    echo $! >"$pid" ;;
kill*QUIT*) kill -QUIT "$(cat "$pid")" ;;
stop*) kill -INT "$(cat "$pid")" ;;
*able*) ;;
*) echo "systemctl: $*" >&2; exit 1 ;;
esac
"#;

struct Machine {
    folder: tempfile::TempDir,
    address: std::net::SocketAddr,
}

impl Machine {
    fn new(upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, free_port()));
        let systemctl = folder.path().join("systemctl");
        fs::write(&systemctl, SYSTEMCTL).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Machine { folder, address };
        machine.configure(&format!(
            "listeners: [{{ address: \"{address}\" }}]\nservices: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]\n",
            upstream.address()
        ));
        machine
    }

    fn configure(&self, config: &str) {
        fs::write(self.folder.path().join("corsgate.yaml"), config).unwrap();
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).env("RUNTIME", self.folder.path()).env("CORSGATE", env!("CARGO_BIN_EXE_corsgate"));
        command.env("CONFIG", self.folder.path().join("corsgate.yaml")).stdin(Stdio::null());
        command
    }

    /// The exit code and the output.
    fn upgrade(&self) -> (i32, String) {
        let output = self.command(&conf("systemd/corsgate-upgrade")).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.code().unwrap(), said)
    }

    fn start(&self, instance: &str) {
        let status = self.command(&self.folder.path().join("systemctl")).args(["start", instance]).status();
        assert!(status.unwrap().success());
        self.wait("serves", || std::net::TcpStream::connect(self.address).is_ok());
    }

    fn log(&self, instance: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{instance}.log"))).unwrap_or_default()
    }

    fn wait(&self, what: &str, mut is: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is() {
            assert!(
                std::time::Instant::now() < deadline,
                "{what}: blue\n{}green\n{}",
                self.log("blue"),
                self.log("green")
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for instance in ["blue", "green"] {
            let pid = fs::read_to_string(self.folder.path().join(format!("{instance}.pid"))).unwrap_or_default();
            if !pid.is_empty() && !self.log(instance).contains("stopped") {
                let _ = Command::new("sh").arg("-c").arg(format!("kill -KILL {pid}")).stderr(Stdio::null()).status();
            }
        }
    }
}

#[test]
fn the_upgrade_script_hands_over_from_blue_to_green() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let machine = Machine::new(&upstream);
    let (code, said) = machine.upgrade();
    assert_eq!(code, 1, "nothing runs yet: {said}");
    machine.start("corsgate@blue");
    let (code, said) = machine.upgrade();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("corsgate@green has taken over from corsgate@blue"), "{said}");
    machine.wait("green serves", || machine.log("green").contains("serving listeners="));
    machine.wait("blue ends", || machine.log("blue").contains("stopped"));
    assert_eq!(fetch(machine.address, "GET", "/", &[("Host", "api.test")]).status, 200);
}

#[test]
fn the_upgrade_script_changes_nothing_with_an_invalid_configuration() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let machine = Machine::new(&upstream);
    machine.start("corsgate@blue");
    machine.configure("listeners: []\n");
    let (code, said) = machine.upgrade();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("listeners: the list is empty"), "{said}");
    assert_eq!(fetch(machine.address, "GET", "/", &[("Host", "api.test")]).status, 200);
}
