"""Stage II curation: index recorded episodes, check and trim them, split them, pack them into shards."""
