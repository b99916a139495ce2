"""What callers see: the keywords, the words that say where, the results, and no secrets."""
