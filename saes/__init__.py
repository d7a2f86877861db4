"""One sparse autoencoder: parameters, loss, update step, evaluation, and the files it is kept in."""
