"""Taking over the tokens of a second tokenizer."""
