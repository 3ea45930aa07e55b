"""What the pages of studies show and say beside the numbers of every study."""
