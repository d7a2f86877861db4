"""Documents, tokens, contexts."""
