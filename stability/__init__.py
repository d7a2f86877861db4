"""Which features reappear across seeds, and which subspaces do: arrays in, arrays out."""
