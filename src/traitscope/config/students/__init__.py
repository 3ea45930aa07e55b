"""Settings about students that are finished: what they are asked, and what is said of them."""
