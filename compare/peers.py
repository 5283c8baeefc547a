"""The peers: how they are configured, started, reloaded and stopped, and their versions.

All peers have the same Work, configured as their manuals recommend, with one worker, kept upstream connections and no
access log. They have only those settings beyond their defaults that a careful operator would set: enough kept
connections, hash tables of the right size, no temporary files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import load
import scenarios

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "target"
MADE, PLAIN = TARGET / "pgo", TARGET / "release"  # the builds of `make release` and of `cargo build --release`
PYTHON_PACKAGES = TARGET / "tools" / "peers"  # the folder of tools/need-peers.sh

PEER_CORE, OTHER_CORE, BOTH_CORES = "0", "1", "0,1"


@dataclasses.dataclass(frozen=True)
class Work:
    """The task of a gateway: hosts, origins, routes and the backend."""

    backend: int
    certificate: Path
    key: Path
    hosts: Sequence[str] = (scenarios.HOST,)
    origins: Sequence[str] = (scenarios.ORIGIN,)
    prefixes: Sequence[str] = ("/v1/",)
    max_age: int = scenarios.MAX_AGE


class Failed(Exception):
    """A peer did not start, or did not put a configuration in force."""


class Peer:
    name: str
    environment: dict[str, str] = {}

    def __init__(self, folder: Path, work: Work, workers: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name.replace(' ', '-')}-", dir=folder))
        self.workers = workers
        self.port, self.tls_port, self.admin_port = load.free_port(), load.free_port(), load.free_port()
        self.work = work
        self.process: subprocess.Popen | None = None

    # === different in each peer ===

    @classmethod
    def binary(cls) -> str | None:
        """Returns the path of the binary, if it is installed."""
        return shutil.which(cls.name)

    @classmethod
    def version(cls) -> str:
        raise NotImplementedError

    def configure(self) -> None:
        """Writes the configuration."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def command_for_callgrind(self) -> list[str]:
        """Returns the command with which the peer runs in a single process."""
        return self.command()

    def reload(self) -> None:
        """Puts the configuration of `configure` in force."""
        raise NotImplementedError

    # === the same in all peers ===

    def start(
        self,
        wrapper: Sequence[str] = (),
        seconds: float = 60,
        most_memory: int | None = None,
        request: scenarios.Request = scenarios.GET,
    ) -> float:
        """Starts the peer on its core. Returns the seconds until its first response."""
        self.configure()
        command = self.command_for_callgrind() if wrapper else self.command()
        began = time.monotonic()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", PEER_CORE if self.workers == 1 else BOTH_CORES, *wrapper, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        try:
            while time.monotonic() - began < seconds:
                if self.process.poll() is not None:
                    raise Failed(f"{self.name} ended at its start: {self.last_words()}")
                if most_memory and load.memory(self.process.pid) > most_memory:
                    raise Failed(f"took more than {most_memory >> 30} GiB")
                try:
                    if scenarios.ask(self.port, request, timeout=seconds)["status"] == 200:
                        return time.monotonic() - began
                except OSError:
                    pass
                time.sleep(0.02)
            raise Failed(f"did not answer within {seconds:.0f} s")
        except BaseException:
            self.stop()
            raise

    def stop(self, patience: float = 10) -> None:
        """Stops the peer, and all processes that it has started."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def last_words(self) -> str:
        return (self.folder / "log").read_text(errors="replace").strip()[-300:]

    def replace(self, name: str, text: str) -> None:
        """Replaces a file atomically."""
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.rename(self.folder / name)


class Corsgate(Peer):
    name = "corsgate"
    built = MADE / "corsgate"
    watched = ""  # no admin listener and no access log, so nothing is recorded
    server = "server: {{ threads: {workers}, grace_period: 1s }}"
    file = "corsgate.yaml"

    @classmethod
    def binary(cls) -> str | None:
        return str(cls.built) if cls.built.exists() else None

    @classmethod
    def version(cls) -> str:
        return first_line([cls.binary(), "--version"])

    def configure(self) -> None:
        self.replace(
            self.file,
            f"""
listeners:
  - address: 127.0.0.1:{self.port}
  - address: 127.0.0.1:{self.tls_port}
    tls: {{ min_version: "1.3", certificates: [{{ cert: {self.work.certificate}, key: {self.work.key} }}] }}
{self.watched.format(admin=self.admin_port)}
{self.server.format(workers=self.workers)}
upstreams:
  api: {{ nodes: [{{ address: 127.0.0.1:{self.work.backend} }}] }}
services:
  - name: api
    upstream: api
    hosts:
{yaml_list(self.work.hosts)}
    cors:
      allow_methods: [{scenarios.METHODS}]
      allow_headers: [{scenarios.HEADERS}]
      max_age: {self.work.max_age}
      allow_origins:
        - "https://*.partner.example"
{yaml_list(self.work.origins)}
    routes:
"""
            + "\n".join(
                f"      - {{ name: r{number}, paths: [{prefix}*] }}" for number, prefix in enumerate(self.work.prefixes)
            ),
        )

    def command(self) -> list[str]:
        return [self.binary(), "run", "--config", str(self.folder / self.file)]

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


class CorsgatePlain(Corsgate):
    name = "corsgate plain"
    built = PLAIN / "corsgate"


class CorsgateMetrics(Corsgate):
    name = "with metrics"
    watched = "admin: {{ address: 127.0.0.1:{admin} }}"


class CorsgateLog(Corsgate):
    name = "with metrics and log"
    watched = "admin: {{ address: 127.0.0.1:{admin} }}\naccess_log: {{ to: access.log }}"


class CorsgateDefaults(Corsgate):
    """corsgate with the defaults of `server`."""

    name = "YAML"
    server = ""


class CorsgateJson(CorsgateDefaults):
    """The same configuration as JSON, as programs write it."""

    name = "JSON"

    def configure(self) -> None:
        routes = [{"name": f"r{number}", "paths": [f"{prefix}*"]} for number, prefix in enumerate(self.work.prefixes)]
        cors = {
            "allow_methods": scenarios.METHODS.split(", "),
            "allow_headers": scenarios.HEADERS.split(", "),
            "max_age": self.work.max_age,
            "allow_origins": ["https://*.partner.example", *self.work.origins],
        }
        service = {"name": "api", "upstream": "api", "hosts": self.work.hosts, "cors": cors, "routes": routes}
        node = {"address": f"127.0.0.1:{self.work.backend}"}
        configuration = {
            "listeners": [{"address": f"127.0.0.1:{self.port}"}],
            "upstreams": {"api": {"nodes": [node]}},
            "services": [service],
        }
        self.replace(self.file, json.dumps(configuration))


NGINX_CORS = """
if ($request_method = OPTIONS) {
  add_header Access-Control-Allow-Origin $cors_origin;
  add_header Access-Control-Allow-Methods $cors_methods;
  add_header Access-Control-Allow-Headers $cors_headers;
  add_header Access-Control-Max-Age $cors_max_age;
  add_header Vary Origin;
  return 200;
}
add_header Access-Control-Allow-Origin $cors_origin always;
add_header Vary Origin always;
proxy_hide_header Access-Control-Allow-Origin;
proxy_hide_header Access-Control-Allow-Methods;
proxy_hide_header Access-Control-Allow-Headers;
proxy_hide_header Access-Control-Allow-Credentials;
proxy_hide_header Access-Control-Expose-Headers;
proxy_hide_header Access-Control-Max-Age;
"""

NGINX_PROXIED = """proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Request-Id $request_id;
proxy_pass http://api;
"""

NGINX_MODULES = Path("/usr/lib/nginx/modules")


class Nginx(Peer):
    name = "nginx"
    modules = ""
    location = NGINX_CORS

    @classmethod
    def version(cls) -> str:
        return first_line(["nginx", "-v"]).removeprefix("nginx version: ")

    def configure(self) -> None:
        # The size depends on the number of names: enough for 1,000,000 names of up to 100 bytes without a warning.
        buckets = max(1024, 2 * len(self.work.hosts), 2 * len(self.work.origins))
        (self.folder / "location.conf").write_text(self.location + NGINX_PROXIED)
        self.replace(
            "nginx.conf",
            f"""
daemon off; user root; worker_processes {self.workers}; worker_rlimit_nofile 65536;
pid {self.folder}/pid; error_log {self.folder}/error.log crit;
{self.modules}
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p; fastcgi_temp_path {self.folder}/f;
  uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
  keepalive_requests 1000000000;
  client_body_buffer_size 128k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0;
  server_names_hash_max_size {buckets}; server_names_hash_bucket_size 128;
  map_hash_max_size {buckets}; map_hash_bucket_size 128;
  ssl_certificate {self.work.certificate}; ssl_certificate_key {self.work.key}; ssl_protocols TLSv1.3;

  {self.policy()}

  upstream api {{ server 127.0.0.1:{self.work.backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{self.port} default_server backlog=4096{" reuseport" if self.workers > 1 else ""};
    listen 127.0.0.1:{self.tls_port} ssl http2 default_server backlog=4096;
    return 404;
  }}
  server {{
    listen 127.0.0.1:{self.port};
    listen 127.0.0.1:{self.tls_port} ssl http2;
    server_name {lines("{0}", self.work.hosts)};
    {lines("location {0} {{ include location.conf; }}", self.work.prefixes)}
  }}
}}
""",
        )

    def policy(self) -> str:
        """Returns the part of the configuration with the policy."""
        return f"""map $http_origin $cors_origin {{
    default "";
    "~{scenarios.PARTNERS}" $http_origin;
    {lines('"{0}" $http_origin;', self.work.origins)}
  }}
  map $cors_origin $cors_methods {{ "" ""; default "{scenarios.METHODS}"; }}
  map $cors_origin $cors_headers {{ "" ""; default "{scenarios.HEADERS}"; }}
  map $cors_origin $cors_max_age {{ "" ""; default "{self.work.max_age}"; }}
"""

    def command(self) -> list[str]:
        return ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def command_for_callgrind(self) -> list[str]:
        return [*self.command(), "-g", "master_process off;"]

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


class NginxLua(Nginx):
    """The behaviour of APISIX's cors plugin, implemented from its documentation. It is not APISIX: nginx routes and
    balances, and only the policy is Lua."""

    name = "nginx + Lua"
    modules = "\n".join(
        f"load_module {NGINX_MODULES}/{name}.so;" for name in ("ndk_http_module", "ngx_http_lua_module")
    )
    location = (
        "access_by_lua_block { require('cors').access() }\nheader_filter_by_lua_block { require('cors').header() }\n"
    )

    @classmethod
    def binary(cls) -> str | None:
        return shutil.which("nginx") if (NGINX_MODULES / "ngx_http_lua_module.so").exists() else None

    @classmethod
    def version(cls) -> str:
        package = first_line(["dpkg-query", "--showformat", "${Version}", "--show", "libnginx-mod-http-lua"])
        return f"{super().version()}, libnginx-mod-http-lua {package}"

    def policy(self) -> str:
        origins = [f"^{re.escape(origin)}$".replace("\\-", "-") for origin in self.work.origins]
        (self.folder / "cors.lua").write_text(
            f"""
-- The attributes of the plugin. A policy with expressions lists all origins as expressions.
local plugin = {{
  allow_origins_by_regex = {{ {", ".join(f"[[{expression}]]" for expression in [*origins, scenarios.PARTNERS])} }},
  allow_methods = "{scenarios.METHODS}",
  allow_headers = "{scenarios.HEADERS}",
  max_age = {self.work.max_age},
}}
{LUA_CORS}
"""
        )
        return f"lua_package_path '{self.folder}/?.lua;;'; init_by_lua_block {{ require('cors') }}"


LUA_CORS = """
local match = ngx.re.find

local function allowed(origin)
  if origin then
    for _, expression in ipairs(plugin.allow_origins_by_regex) do
      if match(origin, expression, "jo") then return origin end
    end
  end
end

-- A response can have several Vary headers already: one more is added.
local function add_to_vary(name)
  local vary = ngx.header["Vary"]
  if vary == nil then
    ngx.header["Vary"] = name
  elseif type(vary) == "table" then
    vary[#vary + 1] = name
    ngx.header["Vary"] = vary
  else
    ngx.header["Vary"] = { vary, name }
  end
end

return {
  -- The plugin answers each OPTIONS itself.
  access = function()
    ngx.ctx.origin = ngx.var.http_origin
    if ngx.req.get_method() == "OPTIONS" then return ngx.exit(200) end
  end,

  -- Allowed origins get all headers, on every response; the upstream's are replaced.
  header = function()
    add_to_vary("Origin")
    local origin = allowed(ngx.ctx.origin)
    if not origin then return end
    local header = ngx.header
    header["Access-Control-Allow-Origin"] = origin
    header["Access-Control-Allow-Methods"] = plugin.allow_methods
    header["Access-Control-Max-Age"] = plugin.max_age
    header["Access-Control-Allow-Headers"] = plugin.allow_headers
  end,
}
"""


class Haproxy(Peer):
    name = "haproxy"

    @classmethod
    def version(cls) -> str:
        return first_line(["haproxy", "-v"]).split(" - ")[0]

    def configure(self) -> None:
        # HAProxy compiles files of strings to trees only if case counts, so hosts are converted to lower case first.
        (self.folder / "hosts").write_text("\n".join(self.work.hosts) + "\n")
        (self.folder / "origins").write_text("\n".join(self.work.origins) + "\n")
        (self.folder / "prefixes").write_text("\n".join(self.work.prefixes) + "\n")
        preflight = " ".join(
            f'hdr {name} "{value}"'
            for name, value in (
                ("Access-Control-Allow-Origin", "%[var(txn.origin)]"),
                ("Access-Control-Allow-Methods", scenarios.METHODS),
                ("Access-Control-Allow-Headers", scenarios.HEADERS),
                ("Access-Control-Max-Age", self.work.max_age),
                ("Vary", "Origin"),
            )
        )
        pem = self.folder / "both.pem"
        pem.write_text(self.work.certificate.read_text() + self.work.key.read_text())
        self.replace(
            "haproxy.cfg",
            f"""
global
  nbthread {self.workers}
  maxconn 8192
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend edge
  bind 127.0.0.1:{self.port} backlog 4096
  bind 127.0.0.1:{self.tls_port} backlog 4096 ssl crt {pem} alpn h2,http/1.1
  acl known_host req.hdr(host),host_only,lower -m str -f {self.folder}/hosts
  acl known_path path -m beg -f {self.folder}/prefixes
  acl listed req.fhdr(origin) -m str -f {self.folder}/origins
  acl partner req.fhdr(origin) -m reg {scenarios.PARTNERS}
  acl allowed var(txn.origin) -m found
  http-request return status 404 unless known_host known_path
  http-request set-var(txn.origin) req.fhdr(origin) if listed || partner
  http-request return status 200 {preflight} if METH_OPTIONS allowed
  http-request return status 200 hdr Vary Origin if METH_OPTIONS
  option forwardfor
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Request-Id %[uuid()]
  http-response del-header Access-Control- -m beg
  http-response set-header Access-Control-Allow-Origin %[var(txn.origin)] if allowed
  http-response add-header Vary Origin
  default_backend api
backend api
  server node 127.0.0.1:{self.work.backend}
""",
        )

    def command(self) -> list[str]:
        return ["haproxy", "-W", "-f", str(self.folder / "haproxy.cfg")]

    def command_for_callgrind(self) -> list[str]:
        return ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]

    def reload(self) -> None:
        self.process.send_signal(signal.SIGUSR2)


class Envoy(Peer):
    name = "envoy"

    @classmethod
    def binary(cls) -> str | None:
        packaged = PYTHON_PACKAGES / "envoy" / "_bin" / "envoy"
        return str(packaged) if packaged.exists() else shutil.which("envoy")

    @classmethod
    def version(cls) -> str:
        return "envoy/" + re.search(r"version: [^/]*/([^/]*)/", first_line([cls.binary(), "--version"]))[1]

    def configure(self) -> None:
        """Writes JSON, because Envoy reads it faster than YAML. Envoy reloads only the file of the routes."""

        def address(port: int) -> dict:
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        def chain(**more: object) -> list:
            return [
                {
                    "filters": [
                        {
                            "name": "envoy.filters.network.http_connection_manager",
                            "typed_config": {
                                "@type": f"{ENVOY}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                                "stat_prefix": "edge",
                                "use_remote_address": True,
                                "rds": {
                                    "route_config_name": "edge",
                                    "config_source": {
                                        "resource_api_version": "V3",
                                        "path_config_source": {
                                            "path": f"{self.folder}/routes.json",
                                            "watched_directory": {"path": str(self.folder)},
                                        },
                                    },
                                },
                                "http_filters": [
                                    {
                                        "name": "envoy.filters.http.cors",
                                        "typed_config": {"@type": f"{ENVOY}.filters.http.cors.v3.Cors"},
                                    },
                                    {
                                        "name": "envoy.filters.http.router",
                                        "typed_config": {"@type": f"{ENVOY}.filters.http.router.v3.Router"},
                                    },
                                ],
                            },
                        }
                    ],
                    **more,
                }
            ]

        tls = {
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": f"{ENVOY}.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {
                        "tls_params": {
                            "tls_minimum_protocol_version": "TLSv1_3",
                            "tls_maximum_protocol_version": "TLSv1_3",
                        },
                        "alpn_protocols": ["h2", "http/1.1"],
                        "tls_certificates": [
                            {
                                "certificate_chain": {"filename": str(self.work.certificate)},
                                "private_key": {"filename": str(self.work.key)},
                            }
                        ],
                    },
                },
            }
        }
        (self.folder / "envoy.json").write_text(
            json.dumps(
                {
                    "node": {"id": "edge", "cluster": "edge"},
                    "static_resources": {
                        "listeners": [
                            {"name": "plain", "address": address(self.port), "filter_chains": chain()},
                            {"name": "tls", "address": address(self.tls_port), "filter_chains": chain(**tls)},
                        ],
                        "clusters": [
                            {
                                "name": "api",
                                "type": "STATIC",
                                "connect_timeout": "2s",
                                "load_assignment": {
                                    "cluster_name": "api",
                                    "endpoints": [
                                        {"lb_endpoints": [{"endpoint": {"address": address(self.work.backend)}}]}
                                    ],
                                },
                            }
                        ],
                    },
                }
            )
        )
        cors = {
            "@type": f"{ENVOY}.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [
                *({"exact": origin} for origin in self.work.origins),
                {"safe_regex": {"regex": scenarios.PARTNERS}},
            ],
            "allow_methods": scenarios.METHODS,
            "allow_headers": scenarios.HEADERS,
            "max_age": str(self.work.max_age),
        }
        self.replace(
            "routes.json",
            json.dumps(
                {
                    "version_info": str(time.time()),
                    "resources": [
                        {
                            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                            "name": "edge",
                            "virtual_hosts": [
                                {
                                    "name": "api",
                                    "domains": list(self.work.hosts),
                                    "typed_per_filter_config": {"envoy.filters.http.cors": cors},
                                    # Removed before the CORS filter sets its own, so no header of the upstream stays.
                                    "response_headers_to_remove": [
                                        f"access-control-{name}"
                                        for name in (
                                            "allow-origin",
                                            "allow-methods",
                                            "allow-headers",
                                            "allow-credentials",
                                            "expose-headers",
                                            "max-age",
                                        )
                                    ],
                                    "response_headers_to_add": [{"header": {"key": "vary", "value": "Origin"}}],
                                    "request_headers_to_add": [
                                        {"header": {"key": "x-forwarded-host", "value": "%REQ(:authority)%"}}
                                    ],
                                    "routes": [
                                        {"match": {"prefix": prefix}, "route": {"cluster": "api"}}
                                        for prefix in self.work.prefixes
                                    ],
                                }
                            ],
                        }
                    ],
                }
            ),
        )

    def command(self) -> list[str]:
        return [
            self.binary(),
            "--concurrency",
            str(self.workers),
            "--disable-hot-restart",
            "--log-level",
            "error",
            "--config-path",
            str(self.folder / "envoy.json"),
        ]

    def reload(self) -> None:
        """Does nothing: Envoy watches the folder, and reloads after the rename."""


ENVOY = "type.googleapis.com/envoy.extensions"


class Caddy(Peer):
    name = "caddy"

    @classmethod
    def version(cls) -> str:
        return "caddy/" + first_line(["caddy", "version"])

    def __init__(self, folder: Path, work: Work, workers: int = 1) -> None:
        super().__init__(folder, work, workers)
        # Caddy writes a copy of its configuration, and a certificate authority, into HOME.
        self.environment = {
            "GOMAXPROCS": "1",
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
        }

    def configure(self) -> None:
        [prefix], [host] = self.work.prefixes, self.work.hosts
        origins = "|".join(re.escape(origin) for origin in self.work.origins)
        self.replace(
            "Caddyfile",
            f"""
{{
  admin 127.0.0.1:{self.admin_port}
  auto_https off
  default_sni {host}
  log {{
    level ERROR
  }}
  servers {{
    protocols h1 h2
  }}
}}
(site) {{
  bind 127.0.0.1
  handle {prefix}* {{
    @allowed header_regexp Origin ^({origins})$|{scenarios.PARTNERS}
    @preflight {{
      method OPTIONS
      header Origin *
    }}
    header Vary Origin
    header @allowed Access-Control-Allow-Origin {{http.request.header.Origin}}
    handle @preflight {{
      header @allowed {{
        Access-Control-Allow-Methods "{scenarios.METHODS}"
        Access-Control-Allow-Headers "{scenarios.HEADERS}"
        Access-Control-Max-Age "{self.work.max_age}"
      }}
      respond 200
    }}
    handle {{
      reverse_proxy 127.0.0.1:{self.work.backend} {{
        header_up X-Request-Id {{http.request.uuid}}
        header_down -Access-Control-*
        transport http {{
          keepalive_idle_conns_per_host 256
        }}
      }}
    }}
  }}
  respond 404
}}
http://{host}:{self.port} {{
  import site
}}
https://{host}:{self.tls_port} {{
  tls {self.work.certificate} {self.work.key} {{
    protocols tls1.3
  }}
  import site
}}
""",
        )

    def command(self) -> list[str]:
        return ["caddy", "run", "--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]

    def reload(self) -> None:
        subprocess.run(
            [
                "taskset",
                "-c",
                OTHER_CORE,
                "caddy",
                "reload",
                "--config",
                str(self.folder / "Caddyfile"),
                "--adapter",
                "caddyfile",
                "--address",
                f"127.0.0.1:{self.admin_port}",
            ],
            check=True,
            capture_output=True,
            timeout=30,
            env=os.environ | self.environment,
        )


class Traefik(Peer):
    """Routes and policy are in a separate file. It is JSON, which is valid YAML, the format that Traefik reads."""

    name = "traefik"
    environment = {"GOMAXPROCS": "1"}

    @classmethod
    def binary(cls) -> str | None:
        packaged = PYTHON_PACKAGES / "bin" / "traefik"
        return str(packaged) if packaged.exists() else shutil.which("traefik")

    @classmethod
    def version(cls) -> str:
        return "traefik/" + first_line([cls.binary(), "version"]).split()[-1]

    def configure(self) -> None:
        [prefix], [host] = self.work.prefixes, self.work.hosts
        hidden = ("origin", "methods", "headers", "credentials")
        cors = {
            "accessControlAllowMethods": [scenarios.METHODS],  # entries are joined with a comma and no space
            "accessControlAllowHeaders": [scenarios.HEADERS],
            "accessControlAllowOriginList": list(self.work.origins),
            "accessControlAllowOriginListRegex": [scenarios.PARTNERS],
            "accessControlMaxAge": self.work.max_age,
            "addVaryHeader": True,
            # An empty value removes the header of the upstream.
            "customResponseHeaders": {f"Access-Control-Allow-{name.title()}": "" for name in hidden},
        }
        certificate = {"certFile": str(self.work.certificate), "keyFile": str(self.work.key)}
        router = {"rule": f"Host(`{host}`) && PathPrefix(`{prefix}`)", "service": "api", "middlewares": ["cors"]}
        self.replace(
            "dynamic.yaml",
            json.dumps(
                {
                    "http": {
                        "routers": {
                            "plain": router | {"entryPoints": ["plain"]},
                            "tls": router | {"entryPoints": ["tls"], "tls": {}},
                        },
                        "middlewares": {"cors": {"headers": cors}},
                        "services": {
                            "api": {
                                "loadBalancer": {
                                    "servers": [{"url": f"http://127.0.0.1:{self.work.backend}"}],
                                    "serversTransport": "kept",
                                }
                            }
                        },
                        "serversTransports": {"kept": {"maxIdleConnsPerHost": 256}},
                    },
                    "tls": {
                        "stores": {"default": {"defaultCertificate": certificate}},
                        "options": {"default": {"minVersion": "VersionTLS13"}},
                    },
                }
            ),
        )

    def command(self) -> list[str]:
        return [
            self.binary(),
            f"--entryPoints.plain.address=127.0.0.1:{self.port}",
            f"--entryPoints.tls.address=127.0.0.1:{self.tls_port}",
            f"--providers.file.filename={self.folder}/dynamic.yaml",
            "--log.level=ERROR",
            "--global.checkNewVersion=false",
            "--global.sendAnonymousUsage=false",
        ]

    def reload(self) -> None:
        """Does nothing: Traefik watches the file, and reloads after the rename."""


class Bare(Peer):
    name = "bare"
    built = MADE / "bare"

    @classmethod
    def binary(cls) -> str | None:
        return str(cls.built) if cls.built.exists() else None

    @classmethod
    def version(cls) -> str:
        return "examples/bare.rs"

    def configure(self) -> None:
        pass

    def command(self) -> list[str]:
        return [
            self.binary(),
            f"127.0.0.1:{self.port}",
            f"127.0.0.1:{self.work.backend}",
            str(self.workers),
            f"127.0.0.1:{self.tls_port}",
            str(self.work.certificate),
            str(self.work.key),
        ]


class BarePlain(Bare):
    name = "bare plain"
    built = PLAIN / "examples" / "bare"


class Backend(Peer):
    """The upstream of all peers: another nginx, on the core of the load generator."""

    name = "backend"

    @classmethod
    def binary(cls) -> str | None:
        return shutil.which("nginx")

    def configure(self) -> None:
        (self.folder / "large").write_bytes(scenarios.LARGE)
        (self.folder / "nginx.conf").write_text(f"""
daemon off; user root; worker_processes 1; worker_cpu_affinity 10; worker_rlimit_nofile 65536;
pid {self.folder}/pid; error_log {self.folder}/error.log crit;
events {{ worker_connections 16384; }}
http {{
  access_log off; sendfile on; default_type application/json;
  client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p; fastcgi_temp_path {self.folder}/f;
  uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 1m;
  add_header Access-Control-Allow-Origin *; add_header Vary Accept-Encoding;
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location / {{ return 200 '{scenarios.BODY.decode()}'; }}
    location = /v1/large {{ alias {self.folder}/large; }}
    location = /v1/forwarded {{
      return 200 '$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host|$http_x_request_id';
    }}
  }}
}}
""")

    def command(self) -> list[str]:
        return ["taskset", "-c", OTHER_CORE, "nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]


# The order is that of the columns.
PEERS: tuple[type[Peer], ...] = (
    Corsgate,
    CorsgatePlain,
    Bare,
    BarePlain,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Traefik,
    NginxLua,
    CorsgateMetrics,
    CorsgateLog,
)
BUILDS = (CorsgatePlain, BarePlain)  # show the gain of `make release`; measured with the main scenarios only
WATCHED = (CorsgateMetrics, CorsgateLog)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Makes the certificate for all peers: ECDSA on P-256."""
    certificate, key = folder / "edge.crt", folder / "edge.key"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "60",
            "-subj",
            f"/CN={scenarios.HOST}",
            "-addext",
            f"subjectAltName=DNS:{scenarios.HOST},IP:127.0.0.1",
            "-out",
            str(certificate),
            "-keyout",
            str(key),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return ((done.stdout + done.stderr).strip().splitlines() or ["?"])[0]


def yaml_list(entries: Sequence[str]) -> str:
    return "\n".join(f"        - {entry}" for entry in entries)


def lines(form: str, entries: Sequence[str]) -> str:
    return "\n    ".join(form.format(entry) for entry in entries)
