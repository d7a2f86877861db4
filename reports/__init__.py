"""Tables, figures and the page: reads result files, computes nothing new."""
