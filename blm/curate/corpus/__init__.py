"""Stage I curation: read conversations from sources, check and clean them, split them, pack them into shards."""
