//! The cost of a route lookup, by the number of hosts and by the depth of the path.
//!
//! Filters: `exact`, `wildcard`, `miss`, `path`; and `10`, `10000`, `1000000`. `same` asks for one host again and
//! again, `spread` for another one each time. The work is equal (so are the instructions), but a million hosts do not
//! fit into a cache. Each step of a lookup then waits for memory: a few steps when the hosts belong to one service,
//! some fifteen when each has its own routes.

mod budget;

use std::hint::black_box;

use corsgate::route::{HostPattern, PathPattern, RouteEntry, RouteMatch, Routes};
use criterion::Criterion;

type Table = Routes<u32, ()>;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let tables: Vec<(usize, Table)> = [10, 10_000, 1_000_000].map(|count| (count, table(count, 1))).into();
    for (count, table) in &tables {
        for asked in all(*count) {
            criterion.bench_function(&format!("router/{}/{count}", asked.name), |bencher| {
                let mut hosts = asked.hosts.iter().cycle();
                bencher.iter(|| asked.find(black_box(table), hosts.next().expect("hosts without end")));
            });
        }
    }
    let paths = paths();
    let deep = format!("/{}", vec!["a"; 64].join("/"));
    for (name, path, found) in [
        ("shallow", "/users/7/mail", true),
        ("below", "/static/css/site.css", true),
        ("deep", &deep, true),
        ("deep_miss", &deep.replacen("/a", "/b", 1), false),
        ("last_step_misses", &format!("{}/b", &deep[..deep.len() - 2]), false),
    ] {
        criterion.bench_function(&format!("router/path/{name}"), |bencher| {
            bencher.iter(|| assert_eq!(is_found(black_box(&paths), "api.example", black_box(path)), found));
        });
    }
    criterion.final_summary();
    if budget::is_asked_for() {
        budgets("of one service", &table(10, 10), &table(1_000_000, 1_000_000));
        budgets("of their own services", &tables[0].1, &tables[2].1);
    }
}

struct Asked {
    name: &'static str,
    hosts: Vec<String>,
    found: bool,
}

impl Asked {
    fn find(&self, table: &Table, host: &str) {
        assert_eq!(is_found(table, black_box(host), "/users/7/mail"), self.found);
    }
}

fn is_found(table: &Table, host: &str, path: &str) -> bool {
    match table.find(host, path.as_bytes()) {
        RouteMatch::Path(path, ()) => path.route("GET").is_some(),
        RouteMatch::UnknownPath(()) | RouteMatch::UnknownHost => false,
    }
}

/// All names have the same length, so that only the number of hosts differs.
fn all(count: usize) -> Vec<Asked> {
    let name = |i: usize| format!("{:07}", i % count);
    let spread = || (0..65_536_usize).map(|i| i.wrapping_mul(7_919_993) % count);
    vec![
        Asked { name: "exact_same", hosts: vec![format!("n{}.example", name(7))], found: true },
        Asked { name: "exact_spread", hosts: spread().map(|i| format!("n{}.example", name(i))).collect(), found: true },
        Asked { name: "wildcard_same", hosts: vec![format!("a.w{}.example", name(7))], found: true },
        Asked {
            name: "wildcard_spread",
            hosts: spread().map(|i| format!("a.w{}.example", name(i))).collect(),
            found: true,
        },
        Asked { name: "miss", hosts: vec!["n0000007.examplf".to_owned()], found: false },
        Asked { name: "miss_deepest", hosts: vec![format!("{}test", "a.".repeat(120))], found: false },
    ]
}

/// Services with this number of hosts in all, each with a wildcard beside it, and two routes.
fn table(count: usize, hosts_each: usize) -> Table {
    let mut builder = Table::builder();
    let entry = |path: &str, route| RouteEntry {
        path: PathPattern::parse(path).expect("a path"),
        methods: None,
        get_implies_head: true,
        route,
    };
    for first in (0..count).step_by(hosts_each) {
        let id = u32::try_from(first).expect("few enough");
        let names =
            (first..first + hosts_each).flat_map(|i| [format!("n{i:07}.example"), format!("*.w{i:07}.example")]);
        let hosts = names.map(|host| HostPattern::parse(&host).expect("a host"));
        builder.service(hosts.collect(), vec![entry("/users/{id}/mail", id), entry("/static/*", id)]);
    }
    builder.build(|_| ()).expect("no two alike")
}

/// Patterns of every depth, so that the lookup of a deep path goes to its end and back.
fn paths() -> Table {
    let mut builder = Table::builder();
    let steps = |step: &str, depth: usize| format!("/{}", vec![step; depth].join("/"));
    let literal = (1..=64).map(|depth| steps("a", depth));
    let parameters = (2..=63).map(|depth| format!("{}/{{id}}/c", steps("a", depth - 1)));
    let others = ["/users/{id}/mail".to_owned(), "/static/*".to_owned()];
    let entries = literal.chain(parameters).chain(others).enumerate().map(|(i, path)| RouteEntry {
        path: PathPattern::parse(&path).expect("a path"),
        methods: None,
        get_implies_head: true,
        route: u32::try_from(i).expect("few enough"),
    });
    builder.service(vec![HostPattern::parse("api.example").expect("a host")], entries.collect());
    builder.build(|_| ()).expect("no two alike")
}

// --- the budget

fn budgets(whose: &str, ten: &Table, million: &Table) {
    for (usual, other) in all(10).iter().zip(&all(1_000_000)) {
        let (mut next_usual, mut next_other) = (usual.hosts.iter().cycle(), other.hosts.iter().cycle());
        budget::compare(
            &format!("{} among 10 hosts and 1,000,000 {whose}", usual.name),
            1.1,
            || next_usual.next().into_iter().for_each(|host| usual.find(ten, host)),
            || next_other.next().into_iter().for_each(|host| other.find(million, host)),
        );
    }
}
