"""What stands inside a row: keys for its fields, parts of a content, dialogues in one text."""
