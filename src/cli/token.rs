//! `corsgate token`: makes a token for the write API.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::{Format, print};
use crate::source::{append_line, read_text};
use crate::tokens::{self, Role, TokenFault, Tokens};

pub(super) const HELP: &str = "\
Examples:
  corsgate token --name ci --role write --file admin.tokens
                                             add a token to the file that `admin.write` names, and print it
  corsgate token --name ci --role read       print a token, and the line with its hash

The token is printed only now. The file has its hash. Reload corsgate (`kill -HUP`) after a change of the file.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the token in the log: letters, digits, `-`, `_` and `.`
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What the token permits
    #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(Role::ALL.map(Role::word)))]
    role: String,
    /// File of tokens to which the line is added; it is created if it does not exist
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How to print the token
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match make(arguments) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {why}");
            ExitCode::FAILURE
        }
    }
}

fn make(Arguments { name, role, file, format }: &Arguments) -> Result<String, String> {
    if !tokens::is_name(name) {
        return Err("a name must have 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
    }
    let role = Role::parse(role).ok_or("the role must be `read` or `write`")?;
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).map_err(|_| "the operating system gives no random numbers")?;
    let token = tokens::token(&random);
    let line = tokens::line(name, role, &token);
    if let Some(file) = file {
        let present = if file.exists() { read_text(file).map_err(|error| error.to_string())? } else { String::new() };
        let separator = if present.is_empty() || present.ends_with('\n') { "" } else { "\n" };
        // With the new line, because it may have the name of another one.
        Tokens::parse(&format!("{present}{separator}{line}"))
            .map_err(|TokenFault { line, why }| format!("{} is not changed: line {line}: {why}", file.display()))?;
        let written = append_line(file, &format!("{separator}{line}"));
        written.map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(match (format, file) {
        (Format::Json, _) => {
            format!("{:#}\n", json!({ "name": name, "role": role.word(), "token": token, "line": line }))
        }
        (Format::Text, Some(_)) => format!("{token}\n"),
        (Format::Text, None) => format!("token  {token}\nline   {line}\n"),
    })
}
