//! Converts texts to YAML strings, for the configurations that corsgate prints.

use crate::terminal::is_invisible;

/// Returns a text as a YAML string. The string has no quotes if every YAML parser reads it as the same string.
pub(crate) fn scalar(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./*".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let has_scheme = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && scheme.chars().chain(rest.chars()).all(is_safe)
    });
    let is_word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*text.to_ascii_lowercase());
    match begins_well && !is_word && (text.chars().all(is_safe) || has_scheme) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

/// Returns a text as a YAML string in quotes.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    match is_plain && text.contains(['\\', '"']) {
        true => format!("'{}'", text.replace('\'', "''")),
        // Every JSON string is a valid YAML string, but YAML requires escapes for more characters.
        false => {
            let json = serde_json::Value::from(text).to_string();
            let escape = |c: char| match is_invisible(c) {
                true => format!("\\U{:08X}", u32::from(c)),
                false => c.to_string(),
            };
            json.chars().map(escape).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_is_read_back_as_it_was() {
        for text in [
            "a",
            "",
            "true",
            "Off",
            "n",
            "1.5",
            "/v1/*",
            "*",
            "https://*.a.example",
            "http://localhost:*",
            "a: b",
            "#x",
            r"https://.*\.a'b",
            "[::1]:80",
            "- x",
            "null",
            "~",
            "ä\u{7f}",
            "a\nb",
            "{x}",
            "/users/{id}",
            "x,y",
            "'",
            "\"",
            "https://a.example",
            "x://y z",
            "@x",
            "%41",
            "0x1F",
            "1e3",
            "2026-01-01",
        ] {
            let read: Vec<String> = serde_yaml::from_str(&format!("[{}, {}]", scalar(text), quoted(text))).unwrap();
            assert_eq!(read, [text, text], "{}", scalar(text));
        }
    }
}
