"""Small networks on images: subliminal learning through auxiliary logits, many networks at once."""
