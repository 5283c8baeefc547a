//! Describes the configuration file to editors, as a JSON Schema, and to people, as the reference page. Both are made
//! from the types of [`crate::config`] and [`crate::cors::Settings`]: their doc comments and their defaults.
//!
//! A schema checks less than `check`: it cannot check names, files, or rules about two places. It accepts every file
//! that `check` accepts, with one exception. Where `check` expects a string, it also accepts YAML's `null`, `true` and
//! numbers without quotes; the schema accepts them only where they are plausible.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::config::Document;

const INTRODUCTION: &str = "\
# Reference of the configuration file

Every key, as `corsgate schema` describes it to editors. This page is made from the same text, so change it there: the
comments in `src/config/document.rs` and `src/cors/settings.rs`. How things work together is in
[Configuration](configuration.md); [conf/reference.yaml](../conf/reference.yaml) has every key in one file.
";

/// The JSON Schema (draft 2020-12) of the configuration file, as `corsgate schema` prints it.
pub fn json() -> String {
    let mut schema = root();
    for_each_property(&mut schema, append_default);
    format!("{schema:#}\n")
}

/// The schemas of these types of the file and of all types in them, by name, for OpenAPI: references point to
/// `#/components/schemas/`.
pub(crate) fn definitions(names: &[&str]) -> Map<String, Value> {
    let mut root = root();
    for_each_property(&mut root, append_default);
    let mut definitions = Map::new();
    let mut open: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = open.pop() {
        let Some(definition) = root["$defs"].get_mut(&name).filter(|definition| !definition.is_null()) else {
            continue;
        };
        let mut definition = definition.take();
        point_to_components(&mut definition, &mut open);
        definitions.insert(name, definition);
    }
    definitions
}

/// Changes the references of a schema, and adds the names of their targets.
fn point_to_components(schema: &mut Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(keys) => {
            if let Some(Value::String(target)) = keys.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/").map(str::to_owned)
            {
                *target = format!("#/components/schemas/{name}");
                names.push(name);
                // Many generators of clients ignore keywords beside a reference.
                if keys.len() > 1 && !keys.contains_key("allOf") {
                    let reference = keys.shift_remove("$ref");
                    keys.insert("allOf".into(), json!([{ "$ref": reference }]));
                }
            }
            keys.values_mut().for_each(|value| point_to_components(value, names));
        }
        Value::Array(entries) => entries.iter_mut().for_each(|value| point_to_components(value, names)),
        _ => {}
    }
}

/// The reference page in Markdown: one table per mapping, in the order of the file.
pub fn reference() -> String {
    let root = root();
    let mut reference = Reference { root: &root, sections: Vec::new() };
    reference.visit(&root, "", "Top level");
    reference.page()
}

// === the schema ===

fn root() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut root = generator.into_root_schema_for::<Document>().to_value();
    for_each_property(&mut root, tidy);
    accept_empty_mappings(&mut root);
    accept_variables(&mut root);
    // `$schema`, title and description come first, for readers of the schema.
    let mut ordered: Map<String, Value> =
        ["$schema", "title", "description"].map(|key| (key.to_owned(), root[key].take())).into_iter().collect();
    if let Value::Object(rest) = root {
        ordered.extend(rest.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Value::Object(ordered)
}

/// Removes the additions of schemars for `Option` and for Rust's number types. A key must have a value, and editors do
/// not need the size of a number in memory.
fn tidy(property: &mut Value) {
    let is_null = |schema: &Value| schema["type"] == "null" || *schema == "null";
    let Some(object) = property.as_object_mut() else { return };
    for key in ["anyOf", "type"] {
        let Some(choices) = object.get_mut(key).and_then(Value::as_array_mut) else { continue };
        choices.retain(|choice| !is_null(choice));
        if let [only] = &mut choices[..] {
            let only = only.take();
            object.remove(key);
            match only {
                Value::Object(only) => only.into_iter().for_each(|(key, value)| {
                    object.entry(key).or_insert(value);
                }),
                word => drop(object.insert(key.into(), word)),
            }
        }
    }
    // The default of a mapping follows from the defaults of its keys, which are given there.
    object.retain(|key, value| key != "format" && !(key == "default" && (value.is_null() || value.is_object())));
    if object.contains_key("enum") {
        object.retain(|key, _| key != "minimum" && key != "maximum");
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// The YAML reader takes a key without a value as an empty mapping. The schema allows that where no key is required.
fn accept_empty_mappings(root: &mut Value) {
    let mut empty = Vec::new();
    let definitions = root["$defs"].clone();
    for_each_property(root, |property| {
        if property["type"] == "object" {
            property["type"] = json!(["object", "null"]);
        }
        if let Some(name) = definition_of(property) {
            let of = &definitions[name];
            if of["type"] == "object" && of.get("required").or(of.get("anyOf")).is_none() {
                empty.push(name.to_owned());
            }
        }
    });
    for name in empty {
        root["$defs"][name]["type"] = json!(["object", "null"]);
    }
}

/// Accepts `${NAME}` in every string, because a schema cannot check whether the file has `environment: true`.
fn accept_variables(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            if let Some(Value::String(pattern)) = keys.get_mut("pattern") {
                pattern.push_str(r"|\$\{[A-Za-z_]");
            }
            keys.values_mut().for_each(accept_variables);
        }
        Value::Array(entries) => entries.iter_mut().for_each(accept_variables),
        _ => {}
    }
}

/// Adds the default to the description, because not all editors show defaults.
fn append_default(property: &mut Value) {
    let default = property.get("default").map(render);
    if let (Some(default), Some(Value::String(text))) = (default, property.get_mut("description")) {
        let _ = write!(text, " Default: `{default}`.");
    }
}

/// Calls `change` for every key of the top level and of all definitions.
fn for_each_property(root: &mut Value, mut change: impl FnMut(&mut Value)) {
    let mut keys_of = |mapping: &mut Value| {
        let properties = mapping.get_mut("properties").and_then(Value::as_object_mut);
        properties.into_iter().flat_map(Map::values_mut).for_each(&mut change);
    };
    keys_of(root);
    let definitions = root.get_mut("$defs").and_then(Value::as_object_mut);
    definitions.into_iter().flat_map(Map::values_mut).for_each(keys_of);
}

fn definition_of(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/$defs/")
}

/// Returns a value in the syntax of the configuration.
fn render(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Writes `1.0` as `1`.
        Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
        value => value.to_string(),
    }
}

// === the reference ===

struct Reference<'s> {
    root: &'s Value,
    /// The mappings in the order of the file. Nested mappings follow the mapping that contains them.
    sections: Vec<Section<'s>>,
}

/// A mapping and the places where it is used.
struct Section<'s> {
    schema: &'s Value,
    heading: String,
    places: Vec<String>,
}

impl<'s> Reference<'s> {
    /// Adds a mapping and the mappings in it. `path` is the prefix of its keys.
    fn visit(&mut self, schema: &'s Value, path: &str, heading: &str) {
        self.sections.push(Section { schema, heading: heading.to_owned(), places: Vec::new() });
        for (key, property) in properties(schema) {
            for (name, suffix) in self.mappings_in(property) {
                let mapping = &self.root["$defs"][name];
                let place = format!("{path}{key}{suffix}");
                let known = self.sections.iter().position(|section| std::ptr::eq(section.schema, mapping));
                let index = known.unwrap_or(self.sections.len());
                if known.is_none() {
                    match mapping["title"].as_str() {
                        Some(title) => self.visit(mapping, &format!("{title}: "), title),
                        None => self.visit(mapping, &format!("{place}."), &place),
                    }
                }
                self.sections[index].places.push(place);
            }
        }
    }

    /// Returns the mappings that a value can be or contain, each with its path.
    fn mappings_in(&self, schema: &'s Value) -> Vec<(&'s str, String)> {
        let below = |schema: Option<&'s Value>, step: &str| -> Vec<(&'s str, String)> {
            let found = schema.map(|schema| self.mappings_in(schema)).unwrap_or_default();
            found.into_iter().map(|(name, suffix)| (name, format!("{step}{suffix}"))).collect()
        };
        let mut found: Vec<_> = definition_of(schema)
            .filter(|name| self.root["$defs"][*name].get("properties").is_some())
            .map(|name| (name, String::new()))
            .into_iter()
            .collect();
        found.extend(below(schema.get("items"), "[]"));
        found.extend(below(schema.get("additionalProperties"), ".NAME"));
        for choice in schema["anyOf"].as_array().into_iter().flatten() {
            found.extend(below(Some(choice), ""));
        }
        found
    }

    fn page(&self) -> String {
        let mut page = INTRODUCTION.to_owned();
        for section in &self.sections {
            let _ = write!(page, "\n## {}\n\n", section.heading);
            self.table(section, &mut page);
        }
        page += "\n## Forms\n\n| form | |\n|---|---|\n";
        let forms = self.root["$defs"].as_object().into_iter().flat_map(Map::values);
        let mut forms: Vec<(&str, &str)> = forms
            .filter(|form| form.get("properties").is_none())
            .filter_map(|form| Some((form["title"].as_str()?, form["description"].as_str()?)))
            .collect();
        forms.sort_unstable();
        for (title, description) in forms {
            let _ = writeln!(page, "| {title} | {} |", cell(description));
        }
        page
    }

    fn table(&self, section: &Section<'_>, page: &mut String) {
        let Section { schema, heading: _, places } = section;
        // The top level has no place. Most mappings have one, which is their heading.
        if !places.is_empty() {
            let about = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
            let places: Vec<String> = places.iter().map(|place| format!("`{place}`")).collect();
            let at = schema.get("title").map(|_| format!(" Used at {}.", places.join(", "))).unwrap_or_default();
            let _ = write!(page, "{about}{at}\n\n");
        }
        *page += "| key | value | default | meaning |\n|---|---|---|---|\n";
        // The keys of a whole file without `source`.
        let of_file = schema["anyOf"][0]["required"].as_array().into_iter().flatten();
        let of_file = of_file.filter(|key| *key == "listeners" || *key == "services");
        let required: Vec<&Value> = schema["required"].as_array().into_iter().flatten().chain(of_file).collect();
        for (key, property) in properties(schema) {
            let default = match property.get("default") {
                Some(default) => format!("`{}`", render(default)),
                None if required.iter().any(|required| *required == key) => "required".to_owned(),
                None => String::new(),
            };
            let (form, meaning) = (self.form(property), self.meaning(property));
            let _ = writeln!(page, "| `{key}` | {form} | {default} | {meaning} |");
        }
    }

    /// Returns the possible values in words.
    fn form(&self, schema: &Value) -> String {
        if let Some(name) = definition_of(schema) {
            let definition = &self.root["$defs"][name];
            let section = self.sections.iter().find(|section| std::ptr::eq(section.schema, definition));
            return match section {
                Some(section) => format!("[mapping](#{})", anchor(&section.heading)),
                None => self.form(definition),
            };
        }
        let number = |key: &str| schema.get(key).map(render);
        let all = |key: &str| schema[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let either = |forms: Vec<String>| match forms.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => forms.concat(),
        };
        if let Some(title) = schema["title"].as_str() {
            return format!("[{title}](#forms)");
        }
        if let Some(word) = schema.get("const") {
            return format!("`{}`", render(word));
        }
        if !all("enum").is_empty() {
            return either(all("enum").iter().map(|word| format!("`{}`", render(word))).collect());
        }
        if !all("anyOf").is_empty() || !all("oneOf").is_empty() {
            return either(all("anyOf").iter().chain(all("oneOf")).map(|choice| self.form(choice)).collect());
        }
        if let Some(items) = schema.get("items") {
            return format!("list of {}", self.form(items));
        }
        if let Some(value) = schema.get("additionalProperties") {
            return format!("names, each with {}", self.form(value));
        }
        match (schema["type"].as_str(), number("minimum"), number("maximum")) {
            (Some("boolean"), ..) => "`true` or `false`".into(),
            (Some("integer"), Some(least), Some(most)) => format!("{least} to {most}"),
            (Some("integer"), ..) => "a whole number".into(),
            (Some("number"), Some(least), Some(most)) => format!("a number from {least} to {most}"),
            _ => "text".into(),
        }
    }

    /// Returns the description of a key and of each of its words.
    fn meaning(&self, schema: &Value) -> String {
        let mut meaning = schema["description"].as_str().map(cell).unwrap_or_default();
        let words = definition_of(schema.get("items").unwrap_or(schema)).map(|name| &self.root["$defs"][name]["oneOf"]);
        for word in words.and_then(Value::as_array).into_iter().flatten() {
            let (name, about) = (render(&word["const"]), word["description"].as_str().unwrap_or_default());
            let _ = write!(meaning, "<br>`{name}`: {}", cell(about));
        }
        meaning
    }
}

fn properties(mapping: &Value) -> impl Iterator<Item = (&str, &Value)> {
    mapping["properties"].as_object().into_iter().flatten().map(|(key, property)| (key.as_str(), property))
}

/// Returns a text for a table cell.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// Returns the anchor of a heading on GitHub.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
