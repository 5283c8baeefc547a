//! `corsgate import`: turns the configuration of another gateway into a configuration of corsgate. A report lists the
//! parts that keep their meaning, the parts that change, and the parts that are left out.
//!
//! Each source format has its own module. The module reads values with their line numbers ([`value`]) into one common
//! model ([`model`]), and applies the real behavior of that engine, including its mistakes. The rules of corsgate check
//! the model. Then the model is written as a configuration file ([`write`]) and reported ([`report`]). A witness is an
//! example request that shows a finding. The report computes corsgate's answer to each witness with the snapshot of the
//! written file.
//!
//! If a source is unsafe and its author meant a safer setting, the import uses the safer setting, and the report has a
//! finding. If the source has the unsafe setting explicitly, the import keeps it and adds the danger to
//! `dangerously_allow`.
//!
//! ```
//! use corsgate::import::{SourceFile, import};
//!
//! let text = r#"
//! apiVersion: networking.k8s.io/v1
//! kind: Ingress
//! metadata: { name: shop, annotations: { nginx.ingress.kubernetes.io/enable-cors: "true" } }
//! spec:
//!   rules: [{ host: shop.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: app, port: { number: 80 } } } }] } }]
//! "#;
//! let imported = import(&[SourceFile { name: "ingress.yaml", text }], None)?;
//! assert!(imported.text.contains("allow_origins: [\"*\"]"));
//! assert!(!imported.text.lines().any(|line| line.trim_start().starts_with("allow_credentials")));
//! assert!(imported.report.has_changes());
//! # Ok::<(), corsgate::import::NotImportable>(())
//! ```

mod apisix;
mod clients;
mod closed;
mod conditions;
mod edits;
mod envoy;
mod finding;
mod finish;
mod gateway_api;
mod ingress_nginx;
mod istio;
mod kong;
mod kubernetes;
mod limits;
mod model;
mod nginx;
mod origins;
mod paths;
mod report;
mod rerouted;
mod traefik;
mod value;
mod weights;
mod witness;
mod write;

use std::fmt;

pub(crate) use self::apisix::keys::{ApisixObject, KeyNote, Translated, Untranslatable, translate};
pub(crate) use self::apisix::object::{ApisixKind, apisix_routes, from_apisix, to_apisix, to_apisix_in};
use self::model::Model;
pub use self::report::ImportReport;
use self::value::{SyntaxError, Value};
use crate::snapshot::{CompileEnv, Loaded, load};

/// One file to import.
#[derive(Debug, Clone, Copy)]
pub struct SourceFile<'t> {
    /// The name of the file, as the user wrote it.
    pub name: &'t str,
    /// The content of the file.
    pub text: &'t str,
}

/// A format that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFormat {
    /// Kubernetes Ingress with the annotations of ingress-nginx.
    IngressNginx,
    /// APISIX: standalone file, Admin API or ADC.
    Apisix,
    /// Kong: declarative file or KongPlugin.
    Kong,
    /// HTTPRoute of Kubernetes Gateway API.
    GatewayApi,
    /// VirtualService of Istio.
    Istio,
    /// Envoy: static bootstrap, or a part of it.
    Envoy,
    /// nginx: servers and locations.
    Nginx,
    /// Traefik: dynamic configuration files.
    Traefik,
}

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The text of a configuration file that `check` accepts.
    pub text: String,
    /// The report: the kept, changed and left-out parts of the source.
    pub report: ImportReport,
}

/// The reason why nothing was imported.
#[derive(Debug)]
pub enum NotImportable {
    /// A file is neither YAML nor JSON.
    Syntax {
        /// Name of the file.
        file: String,
        /// Line number, counted from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// No format was given, and a file does not show its format.
    UnknownFormat {
        /// Name of the file.
        file: String,
    },
    /// The files have different formats.
    SeveralFormats {
        /// Two files, each with its format. The two formats differ.
        files: [(String, SourceFormat); 2],
    },
    /// No route can be imported. The report has the reasons.
    Nothing(ImportReport),
    /// The written configuration is not valid. This is a bug in corsgate.
    Fault {
        /// The problems that `check` finds.
        problems: String,
        /// The written configuration.
        text: String,
    },
}

/// The YAML documents of one file.
struct Parsed<'t> {
    /// Index of the file.
    file: usize,
    documents: &'t [Value],
}

/// Imports files of one format. If `format` is `None`, detects the format from the files.
pub fn import(files: &[SourceFile<'_>], format: Option<SourceFormat>) -> Result<Imported, NotImportable> {
    import_into(Model::default(), files, format)
}

/// Imports files that are served at once. Closes routes that may need a part that is not imported, such as a login.
fn import_live(files: &[SourceFile<'_>], format: SourceFormat) -> Result<Imported, NotImportable> {
    import_into(Model { is_live: true, ..Model::default() }, files, Some(format))
}

fn import_into(
    mut model: Model,
    files: &[SourceFile<'_>],
    format: Option<SourceFormat>,
) -> Result<Imported, NotImportable> {
    let syntax = |file: &SourceFile<'_>, error: SyntaxError| NotImportable::Syntax {
        file: file.name.to_owned(),
        line: error.line,
        message: error.message,
    };
    let is_nginx = format == Some(SourceFormat::Nginx)
        || (format.is_none() && !files.is_empty() && files.iter().all(|file| nginx::shows_in(file.text)));
    if is_nginx {
        for (index, file) in files.iter().enumerate() {
            nginx::read(index, file.text, &mut model).map_err(|error| syntax(file, error))?;
        }
        return finished(model, SourceFormat::Nginx, files);
    }
    let mut documents = Vec::new();
    for file in files {
        documents.push(value::documents(file.text).map_err(|error| syntax(file, error))?);
    }
    let format = match format {
        Some(format) => format,
        None => detect(files, &documents)?,
    };
    let parsed: Vec<Parsed<'_>> =
        documents.iter().enumerate().map(|(file, documents)| Parsed { file, documents }).collect();
    match format {
        // Already read above.
        SourceFormat::Nginx => {}
        SourceFormat::IngressNginx => ingress_nginx::read(&parsed, &mut model),
        SourceFormat::Apisix => apisix::read(&parsed, &mut model),
        SourceFormat::Kong => kong::read(&parsed, &mut model),
        SourceFormat::GatewayApi => gateway_api::read(&parsed, &mut model),
        SourceFormat::Istio => istio::read(&parsed, &mut model),
        SourceFormat::Envoy => envoy::read(&parsed, &mut model),
        SourceFormat::Traefik => traefik::read(&parsed, &mut model),
    }
    finished(model, format, files)
}

/// Completes a model, writes it as text and builds the report.
fn finished(mut model: Model, format: SourceFormat, files: &[SourceFile<'_>]) -> Result<Imported, NotImportable> {
    if let Some(mut policy) = model.cors.take() {
        if policy.complete() {
            model.cors = Some(policy);
        } else {
            model.findings.extend(policy.findings.into_iter().map(|(_, finding)| finding));
        }
    }
    finish::finish(&mut model, format);
    // Each round closes or removes a part of the model, or settles a finding, so the loop ends.
    loop {
        if model.services.is_empty() {
            return Err(NotImportable::Nothing(ImportReport::of_nothing(&model, format, files)));
        }
        let text = write::write(&model, format, files);
        match load(&text, CompileEnv::NONE) {
            Loaded { snapshot: Some(snapshot), .. }
                if conditions::seen(&mut model, &snapshot) || rerouted::seen(&mut model, &snapshot) => {}
            Loaded { snapshot: Some(snapshot), .. } => {
                let report = ImportReport::new(&model, format, files, &snapshot);
                return Ok(Imported { text, report });
            }
            Loaded { snapshot: None, problems } => {
                if !finish::leave_out(&mut model, &problems) {
                    return Err(NotImportable::Fault { problems: problems.to_string(), text });
                }
            }
        }
    }
}

/// Detects the format from the files.
fn detect(files: &[SourceFile<'_>], documents: &[Vec<Value>]) -> Result<SourceFormat, NotImportable> {
    let mut found: Option<(String, SourceFormat)> = None;
    for (file, documents) in files.iter().zip(documents) {
        let Some(format) =
            SourceFormat::ALL.into_iter().find(|format| documents.iter().any(|one| format.shows_in(one)))
        else {
            return Err(NotImportable::UnknownFormat { file: file.name.to_owned() });
        };
        match &found {
            Some((_, known)) if *known == format => {}
            Some(other) => {
                let files = [other.clone(), (file.name.to_owned(), format)];
                return Err(NotImportable::SeveralFormats { files });
            }
            None => found = Some((file.name.to_owned(), format)),
        }
    }
    found.map(|(_, format)| format).ok_or_else(|| NotImportable::UnknownFormat { file: String::new() })
}

// === impl SourceFormat ===

impl SourceFormat {
    /// All formats, in the order in which detection tries them.
    pub const ALL: [Self; 8] = [
        SourceFormat::Kong,
        SourceFormat::GatewayApi,
        SourceFormat::Istio,
        SourceFormat::IngressNginx,
        SourceFormat::Envoy,
        SourceFormat::Traefik,
        SourceFormat::Apisix,
        SourceFormat::Nginx,
    ];

    /// The value of `--from` for this format.
    pub const fn word(self) -> &'static str {
        match self {
            SourceFormat::IngressNginx => "ingress-nginx",
            SourceFormat::Apisix => "apisix",
            SourceFormat::Kong => "kong",
            SourceFormat::GatewayApi => "gateway-api",
            SourceFormat::Istio => "istio",
            SourceFormat::Envoy => "envoy",
            SourceFormat::Nginx => "nginx",
            SourceFormat::Traefik => "traefik",
        }
    }

    /// The name of the product.
    const fn engine(self) -> &'static str {
        match self {
            SourceFormat::IngressNginx => "ingress-nginx",
            SourceFormat::Apisix => "APISIX",
            SourceFormat::Kong => "Kong",
            SourceFormat::GatewayApi => "Gateway API",
            SourceFormat::Istio => "Istio",
            SourceFormat::Envoy => "Envoy",
            SourceFormat::Nginx => "nginx",
            SourceFormat::Traefik => "Traefik",
        }
    }

    /// Whether the engine tries the routes of wider hosts (such as `*.example`) if no route of the request's own host
    /// matches. nginx and Envoy do not. They choose the server or virtual host first, as corsgate does.
    const fn falls_through(self) -> bool {
        match self {
            SourceFormat::Apisix | SourceFormat::Kong | SourceFormat::GatewayApi | SourceFormat::Traefik => true,
            SourceFormat::IngressNginx | SourceFormat::Istio | SourceFormat::Envoy | SourceFormat::Nginx => false,
        }
    }

    fn shows_in(self, document: &Value) -> bool {
        match self {
            SourceFormat::IngressNginx => {
                kubernetes::objects(document).any(|object| object.text_of("kind") == Some("Ingress"))
            }
            SourceFormat::Apisix => apisix::shows_in(document),
            SourceFormat::Kong => kong::shows_in(document),
            SourceFormat::GatewayApi => gateway_api::shows_in(document),
            SourceFormat::Istio => istio::shows_in(document),
            SourceFormat::Envoy => envoy::shows_in(document),
            SourceFormat::Traefik => traefik::shows_in(document),
            // nginx files are not YAML. `import` detects them earlier.
            SourceFormat::Nginx => false,
        }
    }
}

impl fmt::Display for NotImportable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotImportable::Syntax { file, line, message } => {
                write!(f, "{file}:{line}: {message}; correct the file")
            }
            NotImportable::UnknownFormat { file } => {
                let words = SourceFormat::ALL.map(SourceFormat::word).join(", ");
                write!(f, "{file}: the format is not known; name it with `--from`, which takes one of {words}")
            }
            NotImportable::SeveralFormats { files: [(one, is_one), (other, is_other)] } => write!(
                f,
                "{one} is {} and {other} is {}; import them one after the other",
                is_one.word(),
                is_other.word()
            ),
            NotImportable::Nothing(_) => f.write_str("there is no route to import"),
            NotImportable::Fault { problems, .. } => {
                write!(f, "the imported file is not valid, which is a fault of corsgate; please report it:\n{problems}")
            }
        }
    }
}

impl std::error::Error for NotImportable {}

#[cfg(test)]
mod tests {
    use super::witness::{Answer, Witness};
    use super::*;

    /// One row of a test table: the engine's answer, corsgate's answer with the imported file, and the code of the
    /// finding that explains the difference, if there is one.
    pub(super) struct Row {
        witness: Witness,
        ours: Answer,
        code: &'static str,
    }

    pub(super) fn get(origin: &str, engine: Answer, ours: Answer, code: &'static str) -> Row {
        Row { witness: Witness::request("GET", origin, engine), ours, code }
    }

    /// A GET request that the engine and corsgate answer in the same way.
    pub(super) fn same(origin: &str, answer: Answer) -> Row {
        get(origin, answer, answer, "")
    }

    /// A preflight.
    pub(super) fn asks(method: &str, origin: &str, engine: Answer, ours: Answer, code: &'static str) -> Row {
        Row { witness: Witness::preflight(method, origin, engine), ours, code }
    }

    /// An OPTIONS request that is not a preflight.
    pub(super) fn options(origin: &str, engine: Answer, ours: Answer, code: &'static str) -> Row {
        Row { witness: Witness::request("OPTIONS", origin, engine), ours, code }
    }

    impl Row {
        pub(super) fn again(&self) -> Self {
            Row { witness: self.witness.clone(), ..*self }
        }

        /// Returns the same row for another path.
        pub(super) fn at(self, path: &str) -> Self {
            Row { witness: self.witness.to("", path), ..self }
        }
    }

    /// Imports a source, and compares the engine's answers with corsgate's answers. Returns the imported text and the
    /// codes of the findings.
    pub(super) fn table(host: &str, what: &str, source: &str, rows: &[Row]) -> (String, Vec<&'static str>) {
        let imported = import(&[SourceFile { name: "source", text: source }], None)
            .unwrap_or_else(|error| panic!("{what}: {error}\n{source}"));
        let codes = imported.report.codes();
        let Loaded { snapshot, problems } = load(&imported.text, CompileEnv::NONE);
        let snapshot = snapshot.unwrap_or_else(|| panic!("{what}: {problems}\n{}", imported.text));
        for Row { witness, ours, code } in rows {
            let path = if witness.path.is_empty() { "/" } else { &witness.path };
            let witness = witness.clone().to(host, path);
            let line = witness.line();
            assert_eq!(witness.answer(&snapshot), Some(*ours), "{what}: {line}\n{}", imported.text);
            assert_eq!(
                witness.before == *ours,
                code.is_empty(),
                "{what}: {line}: a row has a code if and only if the answers differ"
            );
            assert!(code.is_empty() || codes.contains(code), "{what}: {line}: no `{code}` in {codes:?}");
        }
        assert_eq!(imported.report.contradictions(), Vec::<String>::new(), "{what}\n{}", imported.text);
        (imported.text, codes)
    }

    /// Checks that the imported text contains these parts.
    pub(super) fn only((text, _): &(String, Vec<&str>), parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }

    #[test]
    fn what_cannot_be_imported_has_a_reason() {
        let fails = |files: &[(&str, &str)]| {
            let files: Vec<SourceFile<'_>> = files.iter().map(|(name, text)| SourceFile { name, text }).collect();
            import(&files, None).expect_err("refused").to_string()
        };
        assert!(fails(&[("a.yaml", "a: [1\nb: 2\n")]).starts_with("a.yaml:2: "));
        assert!(fails(&[("a.yaml", "kind: Pod\n")]).contains("a.yaml: the format is not known; name it with `--from`"));
        assert!(fails(&[("empty", "")]).contains("the format is not known"));
        assert_eq!(fails(&[("a.yaml", "kind: Ingress\n")]), "there is no route to import");
    }

    /// Returns the sources in docs/migrate.
    fn samples() -> Vec<&'static str> {
        let pages = [
            include_str!("../docs/migrate/apisix.md"),
            include_str!("../docs/migrate/envoy.md"),
            include_str!("../docs/migrate/gateway-api.md"),
            include_str!("../docs/migrate/ingress-nginx.md"),
            include_str!("../docs/migrate/istio.md"),
            include_str!("../docs/migrate/kong.md"),
            include_str!("../docs/migrate/nginx.md"),
            include_str!("../docs/migrate/traefik.md"),
        ];
        let blocks = pages.into_iter().flat_map(|page| page.split("```").skip(1).step_by(2));
        let is_source = |language: &str| language.split_once(' ').is_some_and(|(_, name)| name.contains('.'));
        let sources = blocks.filter_map(|block| block.split_once('\n')).filter(|(language, _)| is_source(language));
        sources.map(|(_, source)| source).collect()
    }

    /// A source with a mistake is either refused with a reason or imported as a valid file. The import never fails
    /// because of a bug in corsgate, and no witness contradicts its finding.
    #[test]
    fn no_mistake_in_a_source_makes_a_file_that_is_not_valid() {
        let (mut imported, mut refused) = (0, 0);
        for source in samples() {
            let lines: Vec<&str> = source.lines().collect();
            let mut broken: Vec<String> = Vec::new();
            for (index, line) in lines.iter().enumerate() {
                let with = |line: Option<String>| {
                    let (before, after) = (&lines[..index], &lines[index + 1..]);
                    let line = line.into_iter();
                    let all = before.iter().map(|line| (*line).to_owned()).chain(line);
                    all.chain(after.iter().map(|line| (*line).to_owned())).collect::<Vec<_>>().join("\n") + "\n"
                };
                broken.push(with(None));
                if let Some((key, _)) = line.split_once(": ") {
                    broken.extend(
                        ["\"*\"", "[https://*.a/, ä, '', x y]", "null"].map(|odd| with(Some(format!("{key}: {odd}")))),
                    );
                }
            }
            for text in broken {
                match import(&[SourceFile { name: "source", text: &text }], None) {
                    Ok(result) => {
                        imported += 1;
                        assert_eq!(result.report.contradictions(), Vec::<String>::new(), "{text}\n{}", result.text);
                    }
                    Err(NotImportable::Fault { problems, text: written }) => panic!("{problems}\n{text}\n{written}"),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(imported > 200 && refused > 20, "{imported} were imported and {refused} refused");
    }

    /// corsgate chooses a service by its host first. APISIX also tries the routes for every host.
    #[test]
    fn routes_for_every_host_are_hidden_by_a_host() {
        let routes = "routes:\n- { uri: /a, host: h.example, upstream: { nodes: { 'n:1': 1 } } }\n- { uri: /b, upstream: { nodes: { 'n:1': 1 } } }\n";
        let (_, codes) = table("any.example", "hosts", routes, &[]);
        assert!(codes.contains(&"host-hides-routes"), "{codes:?}");
    }
}
