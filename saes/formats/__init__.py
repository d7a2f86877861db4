"""One adapter per third-party file format, each between a folder and `saes.dictionary.Dictionary`."""
