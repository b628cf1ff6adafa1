"""What a tokenizer makes of text, in numbers."""
