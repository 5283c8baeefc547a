//! Suggestions for unknown words ("did you mean").

/// The known words at a place, and the word that is nearest to an unknown word.
///
/// The nearest word is searched once, when the problem is found. A file can have a hundred thousand names, and each
/// problem is described several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    words: Vec<String>,
    nearest: Option<String>,
}

impl Known {
    /// Searches the known words for the word that is nearest to the unknown `word`.
    pub fn instead_of(word: &str, words: Vec<String>) -> Self {
        // The limit allows `trusted_proxy` for `trusted_proxies`, which is three edits.
        let nearest = nearest(word, &words, |length| 1 + length / 4).map(str::to_owned);
        Known { words, nearest }
    }

    /// Does the same as [`Self::instead_of`] if `word` is known to mean one of `words`.
    pub fn meant(word: &str, words: Vec<String>) -> Self {
        Known { words, nearest: Some(word.to_owned()) }
    }

    /// Returns all known words, in the order in which a message lists them.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Returns the nearest word. Returns None if no word is similar enough.
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }

    /// Returns the first words and the number of the others, for a message. There can be thousands of words.
    pub(super) fn listed(&self) -> String {
        let shown: Vec<String> = self.words.iter().take(MOST_LISTED).map(|word| format!("`{word}`")).collect();
        match self.words.len().saturating_sub(MOST_LISTED) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }
}

/// Maximum number of words in a message. Each mapping of the configuration has at most this many keys.
const MOST_LISTED: usize = 20;

/// Maximum length of a compared word. The time of a comparison is proportional to the product of the two lengths.
const LONGEST: usize = 300;

/// Returns the known word with the fewest edits to `word`. Case does not matter. `most` returns the maximum number of
/// edits for a known word of a length. Returns None if no word is similar enough.
pub(crate) fn nearest<'k>(
    word: &str,
    known: impl IntoIterator<Item = &'k String>,
    most: fn(usize) -> usize,
) -> Option<&'k str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= most(candidate.len()))
        .min()
        .map(|(_, candidate)| candidate.as_str())
}
