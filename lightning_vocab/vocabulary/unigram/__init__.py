"""Growing Unigram tokenizers: pieces scored against the best cut of the base."""
