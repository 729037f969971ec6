"""Images as they lie on disk, as one kind of source and one kind of target."""
