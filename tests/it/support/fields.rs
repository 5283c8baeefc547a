//! Header fields as text.

/// The fields of a message in order. Bytes that are not UTF-8 become U+FFFD.
pub type Fields = Vec<(String, String)>;

/// Owned copies of the fields.
pub fn own(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|&(name, value)| (name.into(), value.into())).collect()
}

/// The value of the field. Panics if there are several.
#[track_caller]
pub fn only<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let values = all(fields, name);
    assert!(values.len() <= 1, "{name} comes {} times: {values:?}", values.len());
    values.first().copied()
}

/// The values of all fields of this name, in the order of arrival.
pub fn all<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}
