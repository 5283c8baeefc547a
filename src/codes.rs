//! Closed enums whose variants have a code for logs and metrics.

/// Declares a closed enum, each variant with its code.
///
/// The macro derives from the declaration: `ALL`, `code()` and `index()`. So a new variant has its code, its place in
/// `ALL` and its counter, and none of them can be forgotten.
macro_rules! coded_enum {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $( $(#[$variant_attribute:meta])* $variant:ident = $code:literal, )+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $( $(#[$variant_attribute])* $variant, )+
        }

        impl $name {
            /// All variants, in the order of their declaration.
            $visibility const ALL: [Self; [$( $code ),+].len()] = [$( Self::$variant ),+];

            /// Code in logs, metrics and explanations.
            $visibility const fn code(self) -> &'static str {
                match self {
                    $( Self::$variant => $code, )+
                }
            }

            /// Position in [`Self::ALL`], from 0.
            #[allow(dead_code, reason = "some enums are not counted")]
            $visibility const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use coded_enum;

#[cfg(test)]
mod tests {
    coded_enum! {
        /// An example.
        enum Example {
            /// The first variant.
            First = "first",
            /// The second variant.
            Second = "other",
        }
    }

    #[test]
    fn all_variants_have_their_code_and_index() {
        assert_eq!(Example::ALL, [Example::First, Example::Second]);
        assert_eq!(Example::ALL.map(Example::code), ["first", "other"]);
        assert_eq!(Example::ALL.map(Example::index), [0, 1]);
    }
}
