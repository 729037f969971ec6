"""What a person sees: `info`, previews, and the report."""
