"""What a search tries, what it keeps of it, and how it chooses: everything of it that needs no tracking store."""
