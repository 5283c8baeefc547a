//! "Did you mean": the known word that is closest to an unknown one.

/// The words that are known at a place, and the one that an unknown word was probably meant to be.
///
/// The nearest word is looked for once, when the problem is found: a file can have a hundred thousand names, and a
/// problem is described several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    words: Vec<String>,
    nearest: Option<String>,
}

impl Known {
    /// The words that could stand in the place of `word`.
    pub fn instead_of(word: &str, words: Vec<String>) -> Self {
        let nearest = nearest(word, &words).map(str::to_owned);
        Known { words, nearest }
    }

    /// All of them, in the order in which they are listed.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The word that was probably meant. None when no word is similar enough.
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }

    /// At most eight words, for a message: a reader needs an idea of the choice, not all of a thousand names.
    pub(super) fn listed(&self) -> String {
        let shown: Vec<String> = self.words.iter().take(8).map(|word| format!("`{word}`")).collect();
        match self.words.len().saturating_sub(8) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }
}

/// The known word that `word` was probably meant to be.
fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k String>) -> Option<&'k str> {
    known
        .into_iter()
        // Another case is no other word.
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate.as_str())
}
