"""Arrays on disk: their metadata, codecs and chunk files."""
