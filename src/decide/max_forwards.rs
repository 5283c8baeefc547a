//! `Max-Forwards` of TRACE and OPTIONS: the number of proxies that may still forward the request (RFC 9110 section
//! 7.6.2).

use http::header::MAX_FORWARDS;
use http::{HeaderMap, Method};

/// The value of `Max-Forwards` for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaxForwards {
    /// No limit: the field is absent, or the method is neither TRACE nor OPTIONS.
    Unlimited,
    /// The field is not a single number. It sets no limit, and is not forwarded.
    Invalid,
    /// The gateway must answer the request itself.
    Zero,
    /// The request may be forwarded with this value.
    Next(u32),
}

impl MaxForwards {
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        if !matches!(*method, Method::TRACE | Method::OPTIONS) {
            return MaxForwards::Unlimited;
        }
        let mut fields = headers.get_all(MAX_FORWARDS).iter();
        let Some(field) = fields.next() else { return MaxForwards::Unlimited };
        let digits = field.as_bytes();
        if fields.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return MaxForwards::Invalid;
        }
        // A number that is too large becomes the largest one, as the RFC allows.
        let number =
            digits.iter().fold(0_u32, |number, b| number.saturating_mul(10).saturating_add(u32::from(*b - b'0')));
        number.checked_sub(1).map_or(MaxForwards::Zero, MaxForwards::Next)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_field_limits_trace_and_options_only() {
        let of = |method: &Method, fields: &[&str]| {
            let fields = fields.iter().map(|value| (MAX_FORWARDS, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
            MaxForwards::of(method, &fields.collect())
        };
        #[rustfmt::skip]
        let rows: [(&[&str], MaxForwards); 15] = [
            (&[],                       MaxForwards::Unlimited),
            (&["0"],                    MaxForwards::Zero),
            (&["000"],                  MaxForwards::Zero),
            (&["1"],                    MaxForwards::Next(0)),
            (&["10"],                   MaxForwards::Next(9)),
            (&["99999999999999999999"], MaxForwards::Next(u32::MAX - 1)),
            (&[""],                     MaxForwards::Invalid),
            (&["-1"],                   MaxForwards::Invalid),
            (&["+1"],                   MaxForwards::Invalid),
            (&["1, 2"],                 MaxForwards::Invalid),
            (&["1", "2"],               MaxForwards::Invalid),
            (&["0", "0"],               MaxForwards::Invalid),
            (&["0x0"],                  MaxForwards::Invalid),
            (&["1 "],                   MaxForwards::Invalid),
            (&["٣"],                    MaxForwards::Invalid),
        ];
        for (fields, expected) in rows {
            for method in [Method::TRACE, Method::OPTIONS] {
                assert_eq!(of(&method, fields), expected, "{method} {fields:?}");
            }
            for method in [Method::GET, Method::POST, Method::from_bytes(b"trace").unwrap()] {
                assert_eq!(of(&method, fields), MaxForwards::Unlimited, "{method} {fields:?}");
            }
        }
    }
}
