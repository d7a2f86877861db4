"""Files: written whole or not at all, checksums, JSON, Parquet. Everybody may import it; it imports nobody."""
