"""Curation: turn public sources into a Stage I corpus, and recorded episodes into Stage II shards."""
