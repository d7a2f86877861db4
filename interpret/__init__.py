"""What features respond to."""
