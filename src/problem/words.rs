//! Suggestions for unknown words ("did you mean").

/// The words that are known at a place, and the nearest one to an unknown word.
///
/// The search runs once, when the problem is found. A file can have a hundred thousand names, and each problem is
/// described several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    words: Vec<String>,
    nearest: Option<String>,
}

impl Known {
    /// The known words at the place of the unknown `word`.
    pub fn instead_of(word: &str, words: Vec<String>) -> Self {
        // `trusted_proxy` for `trusted_proxies` is three edits.
        let nearest = nearest(word, &words, |length| 1 + length / 4).map(str::to_owned);
        Known { words, nearest }
    }

    /// As [`Self::instead_of`], when it is known that `word` means one of `words`.
    pub fn meant(word: &str, words: Vec<String>) -> Self {
        Known { words, nearest: Some(word.to_owned()) }
    }

    /// All known words, in the order in which a message lists them.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The most similar word. None when no word is similar enough.
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }

    /// The first words and the number of the others, for a message. There can be thousands.
    pub(super) fn listed(&self) -> String {
        let shown: Vec<String> = self.words.iter().take(MOST_LISTED).map(|word| format!("`{word}`")).collect();
        match self.words.len().saturating_sub(MOST_LISTED) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }
}

/// A mapping of the configuration has at most this many keys.
const MOST_LISTED: usize = 20;

/// The longest word that is compared. The work grows with the product of the two lengths.
const LONGEST: usize = 300;

/// The known word with the fewest edits to `word`, without regard to case. None when no word is similar enough: `most`
/// is the number of edits that are allowed for a known word of a length.
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
