//! `corsgate check --effective`: the effective values of every route, with their positions in the file.

use std::fs;

use crate::support::gateway::run_in;

const CONFIG: &str = "\
listeners: [{ address: 127.0.0.1:9080 }]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
origin_sets: { partners: [https://partner.example] }
cors_policies:
  public:
    allow_origins: \"*\"
    max_age: 7200
cors: &top
  allow_origin_sets: partners
  allow_credential: true
  max_age: 600
services:
  - name: shop
    hosts: [shop.example, \"*.shop.example\"]
    upstream: api
    routes:
      - { name: catalogue, paths: [/items, \"/items/*\"], methods: [GET, PUT], cors: public }
      - { paths: [/raw/*], strip_prefix: /raw, cors: false }
      - name: rest
        paths: [/*]
  - name: aliased
    hosts: [aliased.example]
    upstream: api
    cors: *top
  - name: strict
    upstream: { nodes: [{ address: 127.0.0.1:8001 }] }
    cors:
      allow_origins: https://app.example, https://admin.example
      allow_methods: [GET, DELETE]
      expose_headers: X-Total
      max_age: 60
      preflight: { status: 204 }
      disallowed_origins: reject
";

const SHOWN: &str = "\
shop/catalogue  corsgate.yaml:17
  serves    shop.example, *.shop.example  /items, /items/*  GET, HEAD, PUT
  upstream  api
  policy    `public` at corsgate.yaml:5, used at corsgate.yaml:17
    allow_origins             *         line 6
    allow_methods             *         default
    allow_headers             *         default
    max_age                   7200      line 7
    allow_credentials         false     default
    allow_private_network     false     default
    preflight.match           origin    default
    preflight.status          200       default
    preflight.refused_status  200       default
    upstream_headers          override  default
    disallowed_origins        forward   default
    cross_site                forward   default

shop//raw/*  corsgate.yaml:18
  serves    shop.example, *.shop.example  /raw/*  any method
  upstream  api
  behavior
    strip_prefix  /raw  line 18
  policy    off by `cors: false` at corsgate.yaml:18; requests and responses are not changed

shop/rest  corsgate.yaml:19
  serves    shop.example, *.shop.example  /*  any method
  upstream  api
  policy    corsgate.yaml:8
    allow_origin_sets         partners  line 9
    allow_methods             *         default
    allow_headers             *         default
    max_age                   600       line 11
    allow_credentials         true      line 10
    allow_private_network     false     default
    preflight.match           origin    default
    preflight.status          200       default
    preflight.refused_status  200       default
    upstream_headers          override  default
    disallowed_origins        forward   default
    cross_site                forward   default

aliased  corsgate.yaml:21
  serves    aliased.example  any path  any method
  upstream  api
  policy    corsgate.yaml:24
    allow_origin_sets         partners  line 24
    allow_methods             *         default
    allow_headers             *         default
    max_age                   600       line 24
    allow_credentials         true      line 24
    allow_private_network     false     default
    preflight.match           origin    default
    preflight.status          200       default
    preflight.refused_status  200       default
    upstream_headers          override  default
    disallowed_origins        forward   default
    cross_site                forward   default

strict  corsgate.yaml:25
  serves    any host  any path  any method
  upstream  strict
  policy    corsgate.yaml:27
    allow_origins             https://app.example, https://admin.example  line 28
    allow_methods             GET, DELETE                                 line 29
    allow_headers             *                                           default
    expose_headers            X-Total                                     line 30
    max_age                   60                                          line 31
    allow_credentials         false                                       default
    allow_private_network     false                                       default
    preflight.match           origin                                      default
    preflight.status          204                                         line 32
    preflight.refused_status  200                                         default
    upstream_headers          override                                    default
    disallowed_origins        reject                                      line 33
    cross_site                forward                                     default

";

#[test]
fn every_effective_value_has_its_position_in_the_file() {
    let output = check(CONFIG, &["--effective"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, SHOWN));
    assert!(output.stderr.contains("\ncorsgate.yaml: valid"), "{}", output.stderr);
}

#[test]
fn the_json_format_has_the_same_values() {
    let output = check(CONFIG, &["--effective", "--format", "json"]);
    let routes: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(routes.as_array().map(Vec::len), Some(5));
    assert_eq!(routes[0]["name"], "shop/catalogue");
    assert_eq!(routes[0]["hosts"], serde_json::json!(["shop.example", "*.shop.example"]));
    assert_eq!(routes[0]["cors"]["policy"], "public");
    assert_eq!(routes[0]["cors"]["line"], 5);
    assert_eq!(routes[0]["cors"]["chosen_at_line"], 17);
    let attributes = &routes[0]["cors"]["attributes"];
    assert_eq!(attributes.as_object().map(serde_json::Map::len), Some(23));
    assert_eq!(attributes["max_age"], serde_json::json!({ "value": "7200", "line": 7, "default": false }));
    assert_eq!(attributes["expose_headers"], serde_json::json!({ "value": null, "line": null, "default": true }));
    assert_eq!(routes[1]["cors"], serde_json::json!({ "off": true, "line": 18 }));
    let behaviors = serde_json::json!([{ "key": "strip_prefix", "value": "/raw", "line": 18 }]);
    assert_eq!(routes[1]["behaviors"], behaviors);
    assert_eq!(routes[0]["behaviors"], serde_json::json!([]));
}

#[test]
fn a_service_without_a_policy_is_shown_without_one() {
    let config = "\
listeners: [{ address: 127.0.0.1:9080 }]
services: [{ name: api, upstream: { nodes: [{ address: 127.0.0.1:8000 }] } }]
";
    let shown = "\
api  corsgate.yaml:2
  serves    any host  any path  any method
  upstream  api
  policy    none; requests and responses are not changed

";
    assert_eq!(check(config, &["--effective"]).stdout, shown);
}

#[test]
fn an_invalid_file_prints_the_report_of_check() {
    let broken = CONFIG.replace("max_age: 7200", "max_age: 720000");
    for arguments in [&["--effective"][..], &["--effective", "--format", "json"]] {
        let (effective, plain) = (check(&broken, arguments), check(&broken, &arguments[1..]));
        assert_eq!((effective.code, &effective.stdout), (1, &plain.stdout));
        assert!(effective.stdout.contains("720000"), "{}", effective.stdout);
    }
}

fn check(config: &str, arguments: &[&str]) -> crate::support::gateway::Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("corsgate.yaml"), config).unwrap();
    run_in(folder.path(), &[&["check", "--config", "corsgate.yaml"], arguments].concat())
}
