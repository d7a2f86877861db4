"""Text, language models, and the activations read from them."""
