"""How work is run, whatever the work: pools, slots, joining, trying again."""
