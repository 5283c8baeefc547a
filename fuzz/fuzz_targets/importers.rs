//! Any text as a configuration of each gateway. An import gives a text that `check` accepts. The first byte selects the
//! format.

#![no_main]

use corsgate::import::{NotImportable, SourceFile, SourceFormat, import};
use corsgate::snapshot::{CompileEnv, load};
use libfuzzer_sys::fuzz_target;

const FORMATS: [Option<SourceFormat>; 9] = [
    None,
    Some(SourceFormat::IngressNginx),
    Some(SourceFormat::Apisix),
    Some(SourceFormat::Kong),
    Some(SourceFormat::GatewayApi),
    Some(SourceFormat::Istio),
    Some(SourceFormat::Envoy),
    Some(SourceFormat::Nginx),
    Some(SourceFormat::Traefik),
];

fuzz_target!(|text: &str| {
    let Some((format, text)) = text.split_at_checked(1) else { return };
    let format = FORMATS[usize::from(format.as_bytes()[0]) % FORMATS.len()];
    match import(&[SourceFile { name: "source", text }], format) {
        Ok(imported) => {
            let loaded = load(&imported.text, CompileEnv::NONE);
            assert!(loaded.snapshot.is_some(), "{}\n{}", loaded.problems, imported.text);
        }
        Err(NotImportable::Fault { problems, text }) => panic!("{problems}\n{text}"),
        Err(_) => {}
    }
});
