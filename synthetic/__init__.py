"""Activations of which everything is known: atoms, their firing, the planted subspaces. Generator and scores."""
